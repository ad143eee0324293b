// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

const (
	// maxCauses bounds the failures that are kept beneath one, maxFrames the bodies that one evaluation enters: what
	// comes later is not looked at.
	maxCauses = 64
	maxFrames = 1 << 18
)

// failure is an expression that did not hold, in the body of a rule or of a comprehension.
type failure struct {
	rule   *ast.Rule // nil within the body of a comprehension, an every or a not
	at     int       // lines of the body that held before this one
	index  int       // the expression's place in the compiled body
	found  found
	causes []*failure // why, where the expression asks other rules: the one that got furthest first
}

// deeper orders failures by how far the evaluation came: the last one before success is what is worth showing.
func deeper(a, b *failure) int {
	if a.rule != nil && a.rule == b.rule && a.index != b.index {
		return a.index - b.index
	}
	if a.at != b.at {
		return a.at - b.at
	}
	switch {
	case len(a.causes) == 0 || len(b.causes) == 0:
		return len(a.causes) - len(b.causes)
	default:
		return deeper(a.causes[0], b.causes[0])
	}
}

// frame is a body under evaluation.
type frame struct {
	rule  *ast.Rule
	held  bool
	worst *failure // the failure that got furthest
	now   int
	exprs map[int]*ast.Expr
	below map[int][]*frame // what the expression at a place has entered
}

// tracer follows an evaluation and keeps for each body the expression at which it ended. It only listens: the
// verdict is the evaluation's.
type tracer struct {
	reader
	frames map[uint64]*frame
	root   *frame // the question itself
	// known are failures by rule and arguments: the second time the evaluation takes its own word for it.
	known map[string][]*failure
}

func newTracer(r reader) *tracer {
	return &tracer{reader: r, frames: map[uint64]*frame{}, known: map[string][]*failure{}}
}

func (*tracer) Enabled() bool               { return true }
func (*tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent is called by the evaluation.
func (t *tracer) TraceEvent(e topdown.Event) {
	switch node := e.Node.(type) {
	case *ast.Rule:
		if e.Op == topdown.EnterOp {
			t.enter(e, node)
		} else if e.Op == topdown.ExitOp {
			t.exit(e)
		}
	case ast.Body:
		if e.Op == topdown.EnterOp {
			t.enter(e, nil)
		} else if e.Op == topdown.ExitOp {
			t.exit(e)
		}
	case *ast.Expr:
		t.expression(e, node)
	}
}

func (t *tracer) enter(e topdown.Event, rule *ast.Rule) {
	if len(t.frames) >= maxFrames || rule != nil && rule.Default {
		return
	}
	f := &frame{rule: rule, exprs: map[int]*ast.Expr{}, below: map[int][]*frame{}}
	t.frames[e.QueryID] = f
	if t.root == nil {
		t.root = f
	} else if parent := t.frames[e.ParentID]; parent != nil {
		parent.below[parent.now] = append(parent.below[parent.now], f)
	}
}

func (t *tracer) exit(e topdown.Event) {
	if f := t.frames[e.QueryID]; f != nil {
		f.held = true
	}
}

func (t *tracer) expression(e topdown.Event, expr *ast.Expr) {
	if e.Op == topdown.EnterOp { // the elements of an every
		t.enter(e, nil)
		return
	}
	f := t.frames[e.QueryID]
	if f == nil {
		return
	}
	switch e.Op {
	case topdown.ExitOp:
		f.held = true
	case topdown.EvalOp:
		f.now = expr.Index
		f.exprs[expr.Index] = expr
		delete(f.below, expr.Index)
	case topdown.RedoOp:
		f.now = expr.Index
	case topdown.FailOp:
		t.failed(e, f, expr)
	}
}

func (t *tracer) failed(e topdown.Event, f *frame, expr *ast.Expr) {
	here := &failure{rule: f.rule, at: f.passed(expr), index: expr.Index, causes: causes(f.below[f.now])}
	key := callKey(e, expr)
	switch {
	case len(here.causes) > 0:
		t.known[key] = here.causes
	case len(t.known[key]) > 0:
		here.causes = t.known[key]
	case !expr.Negated:
		// What a comprehension found nothing for is looked for where it was made.
		here.causes = t.madeOf(f, expr)
	}
	here.found = t.read(e, f, expr)
	order := 1
	if f.worst != nil {
		order = cmp.Or(deeper(here, f.worst), here.index-f.worst.index)
	}
	switch {
	case order > 0:
		f.worst = here
	case order == 0:
		f.worst.join(here)
	}
}

// passed counts the lines before expr that the evaluation has been through. What the compiler made of one line is
// several expressions, and how many says nothing about the policy.
func (f *frame) passed(expr *ast.Expr) int {
	rows := map[int]bool{}
	for at, e := range f.exprs {
		if at < expr.Index && e.Location != nil && expr.Location != nil && e.Location.Row != expr.Location.Row {
			rows[e.Location.Row] = true
		}
	}
	return len(rows)
}

// join takes over what another round through the same body wanted: any of it would have done.
func (f *failure) join(other *failure) {
	f.causes = append(f.causes, other.causes[:min(len(other.causes), maxCauses-len(f.causes))]...)
	if f.found.given != other.found.given || f.found.field != other.found.field {
		return
	}
	for _, w := range other.found.wanted {
		if len(f.found.wanted) < maxCauses && !slices.Contains(f.found.wanted, w) {
			f.found.wanted = append(f.found.wanted, w)
		}
	}
}

// top are the failures of the rules that were asked. The question itself holds: false is an answer too.
func (t *tracer) top() []*failure {
	if t.root == nil {
		return nil
	}
	return causes(t.root.below[0])
}

// causes are the failures of bodies that did not hold.
func causes(frames []*frame) []*failure {
	var list []*failure
	for _, f := range frames {
		if !f.held && f.worst != nil {
			list = append(list, f.worst)
		}
	}
	slices.SortStableFunc(list, func(a, b *failure) int {
		if order := deeper(b, a); order != 0 || a.found.sent == b.found.sent {
			return order
		}
		if a.found.sent {
			return -1
		}
		return 1
	})
	return list[:min(len(list), maxCauses)]
}

// madeOf are the failures within the expressions that gave expr's variables their values.
func (t *tracer) madeOf(f *frame, expr *ast.Expr) []*failure {
	for v := range variables(expr) {
		for at, made := range f.exprs {
			if at < expr.Index && len(f.below[at]) > 0 && variables(made)[v] {
				if list := causes(f.below[at]); len(list) > 0 {
					return list
				}
			}
		}
	}
	return nil
}

func variables(expr *ast.Expr) map[ast.Var]bool {
	found := map[ast.Var]bool{}
	for _, term := range operands(expr) {
		ast.WalkVars(term, func(v ast.Var) bool {
			found[v] = !ast.RootDocumentNames.Contains(ast.NewTerm(v))
			return false
		})
	}
	return found
}

// operands are the terms of an expression without the name of what it calls.
func operands(expr *ast.Expr) []*ast.Term {
	switch terms := expr.Terms.(type) {
	case *ast.Term:
		return []*ast.Term{terms}
	case []*ast.Term:
		return terms[1:]
	}
	return nil
}

// callKey is an expression with the values that it is asked with.
func callKey(e topdown.Event, expr *ast.Expr) string {
	terms, ok := expr.Terms.([]*ast.Term)
	if !ok {
		return expr.String()
	}
	key := terms[0].String()
	for _, term := range terms[1:] {
		key += "\x00" + e.Plug(term).String()
	}
	return key
}
