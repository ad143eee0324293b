// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// pureBuiltins are the functions a policy may call: each depends on its arguments
// only and does no I/O. It is a list of what is allowed, so that what a later version
// of the library adds stays out. Entries that end in a dot allow a family whose
// members are all of that kind.
func pureBuiltins() []string {
	return []string{
		"eq", "equal", "neq", "gt", "gte", "lt", "lte", "assign",
		"plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round",
		"count", "sum", "product", "max", "min", "sort",
		"and", "or", "intersection", "union", "walk",
		"array.", "bits.", "base64.", "base64url.", "hex.", "object.", "graph.", "semver.", "glob.", "regex.", "units.", "uri.", "urlquery.",
		"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name", "to_number",
		"concat", "contains", "endswith", "format_int", "indexof", "indexof_n", "lower", "replace", "split", "sprintf", "startswith",
		"substring", "trim", "trim_left", "trim_prefix", "trim_right", "trim_space", "trim_suffix", "upper",
		"strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n", "strings.reverse", "strings.split_n",
		"crypto.sha256", "crypto.hmac.equal",
		"json.filter", "json.is_valid", "json.marshal", "json.patch", "json.remove", "json.unmarshal",
		"numbers.range", "numbers.range_step",
		"time.add_date", "time.clock", "time.date", "time.diff", "time.format", "time.parse_duration_ns", "time.parse_ns",
		"time.parse_rfc3339_ns", "time.weekday",
		// What the compiler turns "x in xs" and template strings into.
		"internal.member_2", "internal.member_3", "internal.template_string",
	}
}

// capabilities is the language of this OPA version with the pure functions only.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool { return !isPure(b) })
	c.AllowNet = []string{}
	return c
}

func isPure(b *ast.Builtin) bool {
	if b.IsNondeterministic() || b.IsDeprecated() {
		return false
	}
	return slices.ContainsFunc(pureBuiltins(), func(entry string) bool {
		return entry == b.Name || strings.HasSuffix(entry, ".") && strings.HasPrefix(b.Name, entry)
	})
}
