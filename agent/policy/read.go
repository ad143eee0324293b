// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// maxShown bounds a value or an expression as it is shown, in bytes.
const maxShown = 1 << 10

// found is an expression that did not hold and the values that it was asked with.
type found struct {
	line         int
	text         string // the policy's own
	field, given string // "" where the expression has none
	sent         bool   // field is the request's
	wanted       []string
}

// reader finds out what an expression's values are and where in the request they stand.
type reader struct {
	input *ast.Term
	// places are the terms of the input by identity: two equal values of a request have each their own.
	places map[*ast.Term]string
	// lookup evaluates a reference to the policy's own data or a comprehension; nil where it has no value.
	lookup func(*ast.Term) ast.Value
}

func newReader(input *ast.Term, lookup func(*ast.Term) ast.Value) reader {
	r := reader{input: input, places: map[*ast.Term]string{}, lookup: lookup}
	r.place(input, "")
	return r
}

func (r reader) place(t *ast.Term, path string) {
	if _, twice := r.places[t]; twice {
		r.places[t] = "" // shared by several: it names no place
		return
	}
	r.places[t] = path
	switch v := t.Value.(type) {
	case ast.Object:
		v.Foreach(func(key, value *ast.Term) { r.place(value, member(path, key)) })
	case *ast.Array:
		i := 0
		v.Foreach(func(value *ast.Term) {
			r.place(value, fmt.Sprintf("%s[%d]", path, i))
			i++
		})
	}
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// member is the path of a member of what stands at path.
func member(path string, key *ast.Term) string {
	name, ok := key.Value.(ast.String)
	_, anyOf := key.Value.(ast.Var) // of which nothing is known
	switch {
	case anyOf:
		return path + "[_]"
	case !ok || !plainName.MatchString(string(name)):
		return path + "[" + key.String() + "]"
	case path == "":
		return string(name)
	}
	return path + "." + string(name)
}

// operand is one side of an expression.
type operand struct {
	field string    // where in the request, or which reference; "" for what stands nowhere
	sent  bool      // field is the request's
	value ast.Value // nil: undefined
	open  bool      // a variable without a value: whatever the other side is
	note  string    // what was computed of the field
}

func (o operand) show() string {
	if o.value == nil {
		return "undefined"
	}
	return o.note + shown(o.value.String())
}

func shown(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return s
}

func (r reader) operand(e topdown.Event, f *frame, term *ast.Term) operand {
	switch v := term.Value.(type) {
	case ast.Ref:
		return r.reference(e, v)
	case ast.Var:
		bound := e.Plug(term)
		if bound == nil || ast.IsComprehension(bound.Value) {
			return operand{}
		}
		if ref, ok := bound.Value.(ast.Ref); ok {
			return r.reference(e, ref)
		}
		if _, unbound := bound.Value.(ast.Var); unbound {
			if v.Equal(ast.InputRootDocument.Value) {
				return operand{field: "input", sent: true, value: r.input.Value}
			}
			return operand{open: true}
		}
		if place := r.places[bound]; place != "" {
			return operand{field: place, sent: true, value: bound.Value}
		}
		return r.computed(e, f, v, bound.Value)
	}
	bound := e.Plug(term)
	if ast.IsComprehension(bound.Value) {
		return r.comprehension(e, bound)
	}
	return operand{field: r.places[bound], sent: r.places[bound] != "", value: bound.Value}
}

// comprehension evaluates one that stands alone: a variable from around it would have no value there.
func (r reader) comprehension(e topdown.Event, term *ast.Term) operand {
	alone, field := true, ""
	ast.WalkTerms(term, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Var:
			_, free := e.Plug(t).Value.(ast.Var)
			alone = alone && (free || ast.RootDocumentNames.Contains(t))
		case ast.Ref:
			if field == "" && v[0].Equal(ast.InputRootDocument) {
				field = r.reference(e, v.GroundPrefix()).field
			}
		}
		return !alone
	})
	if !alone {
		return operand{field: field, sent: field != ""}
	}
	return operand{field: field, sent: field != "", value: r.lookup(term)}
}

// computed says what a value was made of, where one expression made it of a part of the request.
func (r reader) computed(e topdown.Event, f *frame, name ast.Var, value ast.Value) operand {
	o := operand{value: value}
	for _, at := range slices.Sorted(maps.Keys(f.exprs)) {
		maker := f.exprs[at]
		if at >= f.now || !variables(maker)[name] {
			continue
		}
		for _, term := range operands(maker) {
			if term.Value.Compare(name) == 0 {
				continue
			}
			if from := r.source(e, term); from != "" {
				o.field, o.sent = from, true
				if !maker.IsEquality() && maker.IsCall() {
					o.note = maker.Operator().String() + ": "
				}
				return o
			}
		}
	}
	return o
}

// source is the place of a term in the request, "" for none.
func (r reader) source(e topdown.Event, term *ast.Term) string {
	if ref, ok := term.Value.(ast.Ref); ok {
		if o := r.reference(e, ref); o.sent {
			return o.field
		}
		return ""
	}
	return r.places[e.Plug(term)]
}

// reference follows ref into the request, into a variable's value or into the policy's data.
func (r reader) reference(e topdown.Event, ref ast.Ref) operand {
	at := e.Plug(ref[0])
	path := r.places[at]
	sent := path != ""
	switch {
	case ref[0].Equal(ast.InputRootDocument):
		at, path, sent = r.input, "", true
	case ref[0].Equal(ast.DefaultRootDocument):
		full := e.Plug(ast.NewTerm(ref)).Value.(ast.Ref)
		o := operand{field: strings.TrimPrefix(full.String(), "data."+packageName+".")}
		if full.IsGround() {
			o.value = r.lookup(ast.NewTerm(full))
		}
		return o
	}
	for _, step := range ref[1:] {
		key := e.Plug(step)
		path = member(path, key)
		if at != nil {
			at = child(at.Value, key)
		}
	}
	o := operand{field: path, sent: sent}
	if !sent {
		o.field = ""
	}
	if at != nil {
		o.value = at.Value
	}
	return o
}

func child(v ast.Value, key *ast.Term) *ast.Term {
	switch v := v.(type) {
	case ast.Object:
		return v.Get(key)
	case *ast.Array:
		return v.Get(key)
	case ast.Set:
		if v.Contains(key) {
			return key
		}
	}
	return nil
}

// read takes an expression that failed apart.
func (r reader) read(e topdown.Event, f *frame, expr *ast.Expr) found {
	w := found{text: source(expr)}
	if expr.Location != nil {
		w.line = expr.Location.Row
	}
	terms := operands(expr)
	if len(terms) == 0 {
		return w // an every: its elements have the values
	}
	list := r.differing(e, f, expr, terms)
	given := slices.IndexFunc(list, func(o operand) bool { return o.sent })
	if given < 0 {
		given = slices.IndexFunc(list, func(o operand) bool { return o.field != "" })
	}
	if given < 0 {
		given = 0
	}
	w.field, w.sent, w.given = list[given].field, list[given].sent, list[given].show()
	w.wanted = []string{wanted(expr, list, given)}
	return w
}

// differing are the expression's operands; of two lists that should be equal the first elements that are not.
func (r reader) differing(e topdown.Event, f *frame, expr *ast.Expr, terms []*ast.Term) []operand {
	if expr.IsEquality() {
		a, ok1 := e.Plug(terms[0]).Value.(*ast.Array)
		b, ok2 := e.Plug(terms[1]).Value.(*ast.Array)
		for i := 0; ok1 && ok2 && a.Len() == b.Len() && i < a.Len(); i++ {
			x, y := r.operand(e, f, element(terms[0], a, i)), r.operand(e, f, element(terms[1], b, i))
			if x.value == nil || y.value == nil || x.value.Compare(y.value) != 0 {
				return []operand{x, y}
			}
		}
	}
	list := make([]operand, len(terms))
	for i, term := range terms {
		list[i] = r.operand(e, f, term)
	}
	return list
}

// element is one of a list as the policy writes it, or where it writes none, the value.
func element(term *ast.Term, value *ast.Array, i int) *ast.Term {
	if written, ok := term.Value.(*ast.Array); ok {
		return written.Elem(i)
	}
	return value.Elem(i)
}

// wanted words what the expression asks of its operand at given.
func wanted(expr *ast.Expr, list []operand, given int) string {
	switch {
	case len(list) == 1 && expr.Negated:
		return "false or undefined"
	case len(list) == 1:
		return "true"
	case expr.Negated:
		plain := *expr
		plain.Negated = false
		return "not: " + wanted(&plain, list, given)
	}
	name := expr.Operator().String()
	if expr.IsEquality() || name == "equal" || name == "assign" {
		if list[1-given].open {
			return "any value"
		}
		return list[1-given].show()
	}
	switch {
	case name == "internal.member_2" && given == 0:
		return "one of " + list[1].show()
	case name == "internal.member_2":
		return "to hold " + list[0].show()
	case name == "neq":
		return "another value than " + list[1-given].show()
	}
	var args []string
	for i, o := range list {
		switch {
		case i == given:
			args = append(args, "_")
		case !o.open:
			args = append(args, o.show())
		}
	}
	return strings.TrimPrefix(name, "data."+packageName+".") + "(" + strings.Join(args, ", ") + ")"
}

// source is the expression as its author wrote it, on one line.
func source(expr *ast.Expr) string {
	text := ""
	if expr.Location != nil {
		text = string(expr.Location.Text)
	}
	if text == "" {
		text = expr.String()
	}
	return shown(strings.Join(strings.Fields(text), " "))
}
