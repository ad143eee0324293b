// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// replaceAll is replace(string, old, new) without the search table of 2 KB that the library's makes for each call.
// Generated policies call it for each mount of each container they try: a quarter of the memory of a decision.
//
// It fails as the library's does where an operand is no string; besides, for a result that is larger than an
// input may be, and for an empty pattern, which the engines of Rego understand in two ways.
func replaceAll(_ topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	var s [3]string
	for i := range s {
		operand, err := builtins.StringOperand(operands[i].Value, i+1)
		if err != nil {
			return err
		}
		s[i] = string(operand)
	}
	if s[1] == "" {
		return builtins.NewOperandErr(2, "is empty")
	}
	if n := strings.Count(s[0], s[1]); n > 0 && len(s[0])+n*len(s[2]) > MaxStrings {
		return builtins.NewOperandErr(1, "grows too large")
	}
	result := strings.ReplaceAll(s[0], s[1], s[2])
	if result == s[0] {
		return iter(operands[0])
	}
	return iter(ast.StringTerm(result))
}
