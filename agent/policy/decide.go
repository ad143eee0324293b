// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
)

// TimeLimit ends an evaluation that does not come to an end. A real one takes a few milliseconds, and many times that on
// a machine that gives the guest a sliver of its time: to deny there would be wrong.
const TimeLimit = 5 * time.Second

// reason is what the host may read. None depends on what the policy or its data hold.
func reason(code, phrase string) error {
	return &agent.Denial{Reason: agent.Reason{Code: code, Phrase: phrase}}
}

func denied() error    { return reason("policy-denied", "the policy does not allow the request") }
func undefined() error { return reason("policy-silent", "the policy has no answer to the request") }
func failed() error    { return reason("policy-error", "the policy could not be evaluated") }
func late() error      { return reason("policy-time", "the policy gave no answer in time") }
func unfit() error     { return reason("policy-input", "the request is too large or not text") }

// Allow decides and lets the change of state stand at once. The gate uses Decide.
func (p *Policy) Allow(ctx context.Context, request string, msg proto.Message) error {
	d, err := p.Decide(ctx, request, msg)
	if err != nil {
		return err
	}
	d.Begun()
	return nil
}

// Decide judges msg by the rule named request. Every error is an *[agent.Denial]. A decision that changes the state
// holds all others back until its Begun or Undo, one of which must be called.
func (p *Policy) Decide(ctx context.Context, request string, msg proto.Message) (agent.Decision, error) {
	key := repeatKey(request, msg)
	if known, err := p.repeated(ctx, key); err != nil {
		return nil, late()
	} else if known {
		return stateless{}, nil
	}
	input, err := inputOf(msg)
	if err != nil {
		return nil, unfit()
	}
	if p.take(ctx) != nil {
		return nil, late()
	}
	kept := false
	defer func() {
		if !kept {
			p.give()
		}
	}()
	e := p.evaluation(request, input)
	ops, err := p.judge(ctx, e)
	if err != nil {
		err = p.opening(msg, err)
		p.denied(e, err)
		return nil, err
	}
	p.learn(msg)
	if len(ops) == 0 {
		p.remember(key)
		return stateless{}, nil
	}
	next, err := apply(p.state, ops)
	if err != nil {
		return nil, failed()
	}
	d := &change{policy: p, before: p.state, after: next}
	if p.write(ctx, next) != nil {
		return nil, failed()
	}
	kept = true
	return d, nil
}

// evaluation is one question to a compiled policy.
type evaluation struct {
	compiler *ast.Compiler
	request  string
	input    ast.Value
	limit    time.Duration
	// What follows is for an explanation.
	prints print.Hook // nil: nothing is printed
	root   *ast.Term  // the input, as the tracer knows it
	tracer topdown.QueryTracer
}

// quiet is the same without a listener.
func (e evaluation) quiet() evaluation {
	e.prints, e.tracer = nil, nil
	return e
}

func (e evaluation) term() *ast.Term {
	if e.root != nil {
		return e.root
	}
	return ast.NewTerm(e.input)
}

func (p *Policy) evaluation(request string, input ast.Value) evaluation {
	return evaluation{compiler: p.compiler, request: request, input: input, limit: TimeLimit}
}

// judge evaluates and reads the result: nil error and the operations when allowed. The caller has the turn.
func (p *Policy) judge(ctx context.Context, e evaluation) ([]op, error) {
	ctx, cancel := context.WithTimeout(ctx, e.limit)
	defer cancel()
	value, err := p.evaluate(ctx, e)
	switch {
	case ctx.Err() != nil:
		return nil, late()
	case err != nil:
		return nil, failed()
	case value == nil:
		return nil, undefined()
	}
	return verdict(value)
}

// verdict reads a result: true, or an object with allowed true and, if any, ops.
func verdict(value ast.Value) ([]op, error) {
	if b, ok := value.(ast.Boolean); ok && bool(b) {
		return nil, nil
	}
	object, ok := value.(ast.Object)
	if !ok {
		return nil, denied()
	}
	allowed := object.Get(ast.StringTerm("allowed"))
	if allowed == nil || !allowed.Equal(ast.BooleanTerm(true)) {
		return nil, denied()
	}
	list := object.Get(ast.StringTerm("ops"))
	if list == nil {
		return nil, nil
	}
	plain, err := ast.JSON(list.Value)
	if err != nil {
		return nil, failed()
	}
	ops, err := parseOps(plain)
	if err != nil {
		return nil, failed()
	}
	return ops, nil
}

// evaluate returns the value of the request's rule, nil when it is undefined.
func (p *Policy) evaluate(ctx context.Context, e evaluation) (ast.Value, error) {
	// Built from parts, not parsed: the name cannot become anything but a name.
	return p.query(ctx, ast.NewTerm(ast.Ref{ast.DefaultRootDocument, ast.StringTerm(packageName), ast.StringTerm(e.request)}), e)
}

// query returns the value of term, nil when it is undefined.
func (p *Policy) query(ctx context.Context, term *ast.Term, e evaluation) (value ast.Value, err error) {
	defer func() {
		if recover() != nil {
			// The panic's value may quote the input.
			value, err = nil, errors.New("evaluating policy: panic")
		}
	}()
	txn, err := p.store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("preparing policy data: %w", err)
	}
	defer p.store.Abort(ctx, txn)
	cancel := topdown.NewCancel()
	stop := context.AfterFunc(ctx, cancel.Cancel)
	defer stop()
	body := ast.NewBody(ast.Equality.Expr(ast.VarTerm("x"), term))
	q := topdown.NewQuery(body).
		WithCompiler(e.compiler).
		WithStore(p.store).
		WithTransaction(txn).
		WithInput(e.term()).
		WithCancel(cancel).
		WithBuiltins(ownBuiltins()).
		WithStrictBuiltinErrors(true).
		WithPrintHook(e.prints)
	if e.tracer != nil {
		// The index passes over rules that it knows not to match: nothing would be said about these.
		q = q.WithQueryTracer(e.tracer).WithIndexing(false)
	}
	var results topdown.QueryResultSet
	roomy(func() { results, err = q.Run(ctx) })
	if err != nil {
		return nil, fmt.Errorf("evaluating policy: %w", err)
	}
	if len(results) != 1 {
		return nil, nil
	}
	return results[0][ast.Var("x")].Value, nil
}

// write makes state the one that decisions read. The caller has the turn.
func (p *Policy) write(ctx context.Context, state map[string]any) error {
	clear(p.repeats)
	txn, err := p.store.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		return err
	}
	if err := p.store.Write(ctx, txn, storage.ReplaceOp, storage.Path{stateName}, state); err != nil {
		p.store.Abort(ctx, txn)
		return err
	}
	if err := p.store.Commit(ctx, txn); err != nil {
		return err
	}
	p.state = state
	return nil
}

// take waits for the turn, at most as long as the request lives.
func (p *Policy) take(ctx context.Context) error {
	select {
	case <-p.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Policy) give() { p.turn <- struct{}{} }
