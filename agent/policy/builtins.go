// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowedBuiltins are the functions a policy may call: each depends on its arguments alone and does no I/O. It lists
// what is allowed, so that what a later version of the library adds stays out. An entry that ends in a dot allows a
// family whose members are all of that kind.
func allowedBuiltins() []string {
	return []string{
		"eq", "equal", "neq", "gt", "gte", "lt", "lte", "assign",
		"plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round",
		"count", "sum", "product", "max", "min", "sort",
		"and", "or", "intersection", "union", "walk",
		"array.", "base64.", "base64url.", "bits.", "hex.", "object.", "regex.",
		"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name", "to_number",
		"concat", "contains", "endswith", "format_int", "indexof", "indexof_n", "lower", "replace", "split", "sprintf", "startswith",
		"substring", "trim", "trim_left", "trim_prefix", "trim_right", "trim_space", "trim_suffix", "upper",
		"strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n", "strings.reverse",
		"crypto.sha256", "json.marshal", "json.unmarshal", "json.is_valid",
		"numbers.range", "print",
		// What the compiler turns "x in xs", print and template strings into.
		"internal.member_2", "internal.member_3", "internal.print", "internal.template_string",
	}
}

// capabilities is the language of this OPA version with the allowed functions only.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	allowed := allowedBuiltins()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return b.IsNondeterministic() && b.Name != "print" && b.Name != "internal.print" || b.IsDeprecated() ||
			!slices.ContainsFunc(allowed, func(entry string) bool {
				return entry == b.Name || strings.HasSuffix(entry, ".") && strings.HasPrefix(b.Name, entry)
			})
	})
	c.AllowNet = []string{}
	return c
}
