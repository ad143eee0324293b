// SPDX-License-Identifier: Apache-2.0

// Package policy decides about the host's requests by a Rego policy: the tenant's, which came with checked initdata,
// or the built-in one. It serves the unmodified output of Kata Containers 4.1's genpolicy, in Rego v0 and v1
// (docs/architecture.md; the request shapes are those of kata's agent).
//
// A policy is one module of package agent_policy. The rule named like the request's message decides: true, or an
// object {allowed, ops} whose ops are JSON-patch operations on the state document data.pstate. A decision that
// changes the state holds every other decision back until handling has begun, and is taken back when it fails.
//
// Refused at load: text beyond MaxText, another package, every built-in function outside the list in builtins.go (no
// network, clock, randomness or environment), and AllowRequestsFailingPolicy. Refused at a request: whatever is not
// true, no rule at all, an error, a panic, a decision later than TimeLimit, an input beyond the caps of input.go.
//
//   - load.go: text to compiled policy
//   - lift.go: constant objects become data, so that a missing key is undefined and thereby a denial
//   - input.go, copyfile.go: a request as the JSON document that policies read
//   - decide.go, decision.go: one decision, its state change, and how that is undone
//   - stack.go: the stack that an evaluation runs on
//   - own.go, replace.go, match.go: functions of the library's that ours stand in for
//   - state.go: the JSON-patch operations
//   - explain.go, trace.go, read.go: a decision made again while listening to it: which condition did not hold, on
//     which values, and what the policy printed; for the tenant's eyes only
//   - denial.go: a denied request with all that its decision rested on, as a file
//   - opening.go: the line by which a tenant would allow a refused probe
//   - builtin.go, builtin.rego: the policy of guests whose tenant brings none, and its strict form
package policy
