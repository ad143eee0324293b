// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// lift moves every rule that only names a constant object, such as genpolicy's policy_data, out of the module into
// the data document at the same path. The compiler would otherwise know the object's type and refuse a policy whose
// rules read a key that this object has not, where the policy's author means "undefined"; and it would carry the
// object through each decision.
func lift(module *ast.Module) (map[string]any, error) {
	defined := map[string]int{}
	for _, r := range module.Rules {
		defined[r.Head.Ref()[0].Value.String()]++
	}
	values := map[string]any{}
	var kept []*ast.Rule
	for _, r := range module.Rules {
		name := r.Head.Ref()[0].Value.String()
		if defined[name] != 1 || !isConstantObject(r) {
			kept = append(kept, r)
			continue
		}
		value, err := ast.JSON(r.Head.Value.Value)
		if err != nil {
			return nil, &placed{row: r.Location.Row, why: err.Error()}
		}
		values[name] = value
		path := ast.Ref{ast.DefaultRootDocument, ast.StringTerm(packageName), ast.StringTerm(name)}
		module.Imports = append(module.Imports, &ast.Import{
			Location: r.Location, Path: ast.NewTerm(path).SetLocation(r.Location), Alias: ast.Var(name),
		})
	}
	module.Rules = kept
	return map[string]any{packageName: values}, nil
}

func isConstantObject(r *ast.Rule) bool {
	h := r.Head
	if r.Default || r.Else != nil || len(h.Ref()) != 1 || len(h.Args) > 0 || h.Key != nil || h.Value == nil {
		return false
	}
	if _, ok := h.Value.Value.(ast.Object); !ok || !isTrue(r.Body) {
		return false
	}
	constant := true
	ast.WalkTerms(h.Value, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Null, ast.Boolean, ast.Number, ast.String, *ast.Array:
		case ast.Object:
			constant = constant && v.Iter(stringKey) == nil
		default:
			constant = false // a set, a variable, a call
		}
		return !constant
	})
	return constant
}

func stringKey(key, _ *ast.Term) error {
	if _, ok := key.Value.(ast.String); !ok {
		return &placed{why: "key is not a string"}
	}
	return nil
}

// isTrue says whether body is the one that the parser gives a rule without a body.
func isTrue(body ast.Body) bool {
	return len(body) == 1 && body[0].Equal(ast.NewExpr(ast.BooleanTerm(true))) && len(body[0].With) == 0
}
