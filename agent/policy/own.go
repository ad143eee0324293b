// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// ownFunction stands in for one of the library's: it says the same for less memory.
type ownFunction struct {
	name    string
	instead *ast.Builtin
	call    topdown.BuiltinFunc
}

func (f ownFunction) declaration() *ast.Builtin {
	return &ast.Builtin{Name: f.name, Decl: f.instead.Decl, CanSkipBctx: true}
}

func ownFunctions() []ownFunction {
	return []ownFunction{
		{"casemate.replace", ast.Replace, replaceAll},
		{"casemate.match", ast.RegexMatch, matchPattern},
	}
}

func ownDeclarations() map[string]*ast.Builtin {
	list := map[string]*ast.Builtin{}
	for _, f := range ownFunctions() {
		list[f.name] = f.declaration()
	}
	return list
}

func ownBuiltins() map[string]*topdown.Builtin {
	list := map[string]*topdown.Builtin{}
	for _, f := range ownFunctions() {
		list[f.name] = &topdown.Builtin{Decl: f.declaration(), Func: f.call}
	}
	return list
}

// callOwn makes the module's calls of what ours stand in for calls of ours. A module that gives such a name another
// meaning keeps it.
func callOwn(module *ast.Module) {
	for _, f := range ownFunctions() {
		if f.meant(module) {
			f.rename(module)
		}
	}
}

// meant says whether the name means the library's function in all of the module.
func (f ownFunction) meant(module *ast.Module) bool {
	first, _, _ := strings.Cut(f.instead.Name, ".")
	meant := true
	for _, r := range module.Rules {
		meant = meant && !r.Head.Ref()[0].Equal(ast.VarTerm(first))
	}
	for _, i := range module.Imports {
		meant = meant && !strings.EqualFold(string(i.Name()), first)
	}
	ast.WalkExprs(module, func(e *ast.Expr) bool {
		meant = meant && !slices.ContainsFunc(e.With, func(w *ast.With) bool { return w.Target.Value.String() == f.instead.Name })
		return false
	})
	return meant
}

func (f ownFunction) rename(module *ast.Module) {
	theirs, own := f.instead.Ref(), f.declaration().Ref()
	rename := func(terms []*ast.Term) {
		if len(terms) > 0 && terms[0].Value.Compare(theirs) == 0 {
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
