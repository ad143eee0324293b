// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// ownReplace is replace(string, old, new) without the search table of 2 KB that the library's makes for each call.
// Generated policies call it for each mount of each container they try: a quarter of the memory of a decision.
const ownReplace = "casemate.replace"

func replaceDeclaration() *ast.Builtin {
	return &ast.Builtin{Name: ownReplace, Decl: ast.Replace.Decl, CanSkipBctx: true}
}

func ownBuiltins() map[string]*topdown.Builtin {
	return map[string]*topdown.Builtin{ownReplace: {Decl: replaceDeclaration(), Func: replaceAll}}
}

// replaceAll fails as the library's does where an operand is no string; besides, for a result that is larger than an
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

// callOwn makes the module's calls of replace calls of ours. A module that gives the name another meaning keeps it.
func callOwn(module *ast.Module) {
	meant := true
	for _, r := range module.Rules {
		meant = meant && !r.Head.Ref()[0].Equal(ast.VarTerm(ast.Replace.Name))
	}
	for _, i := range module.Imports {
		meant = meant && !strings.EqualFold(string(i.Name()), ast.Replace.Name)
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		meant = meant && !slices.ContainsFunc(e.With, func(w *ast.With) bool { return w.Target.Value.String() == ast.Replace.Name })
		return false
	})
	if !meant {
		return
	}
	own := replaceDeclaration().Ref()
	rename := func(terms []*ast.Term) {
		if len(terms) > 0 && terms[0].Value.Compare(ast.Replace.Ref()) == 0 {
			terms[0] = ast.NewTerm(own).SetLocation(terms[0].Location)
		}
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		if terms, ok := e.Terms.([]*ast.Term); ok {
			rename(terms)
		}
		return false
	})
	ast.WalkTerms(module, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			rename(call)
		}
		return false
	})
}
