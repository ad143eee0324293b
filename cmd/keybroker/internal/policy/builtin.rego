# The policy of a workload that registered none of its own: every submodule of the
# token is affirming, and there is at least one.
package policy

default allow := false

allow if {
	count(input.submods) > 0
	every _, submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
