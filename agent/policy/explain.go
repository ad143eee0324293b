// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"google.golang.org/protobuf/proto"
)

const (
	// maxPrints bounds the lines that one explanation keeps, maxPrint the bytes of one.
	maxPrints = 1000
	maxPrint  = 4 << 10
	// maxReasons bounds the causes of an explanation.
	maxReasons = 64
	// explainTime ends an explanation. It costs many times what the decision did.
	explainTime = time.Minute
)

// Explanation is a decision with what the policy printed on the way and, of a denial, the conditions that did not
// hold. Both quote the request and the policy: they are for the tenant, never for the host, its console or a log
// (docs/security.md, rule 18).
type Explanation struct {
	Denied error // nil when allowed
	Prints []string
	// Causes are conditions that did not hold, the one at which the evaluation got furthest first. Those that follow
	// are alternatives: another body of the same rule, another container of the policy.
	Causes []Cause
}

// Cause is one condition of the policy that the request does not meet.
type Cause struct {
	// Rules lead from the request's own rule to the one with the condition.
	Rules []string `json:"rules"`
	Line  int      `json:"line"`
	Text  string   `json:"condition"`
	// Field is where in the request's document the value stands, or which value of the policy's; Given is the value,
	// Wanted what the condition asks of it, one line for each value that would have done. All may be empty.
	Field  string   `json:"field,omitempty"`
	Given  string   `json:"given,omitempty"`
	Wanted []string `json:"wanted,omitempty"`
}

// Explain judges msg against the present state without changing it.
func (p *Policy) Explain(ctx context.Context, request string, msg proto.Message) (Explanation, error) {
	input, err := inputOf(msg)
	if err != nil {
		return Explanation{}, err
	}
	return p.explain(ctx, request, input)
}

func (p *Policy) explain(ctx context.Context, request string, input ast.Value) (Explanation, error) {
	compiler, _, err := compile(p.text, p.version, true)
	if err != nil {
		return Explanation{}, fmt.Errorf("compiling policy with its prints: %w", err)
	}
	if err := p.take(ctx); err != nil {
		return Explanation{}, fmt.Errorf("waiting for the policy: %w", err)
	}
	defer p.give()
	// A copy of its own, so that no two values of the request are one term.
	root := ast.NewTerm(input).Copy()
	e := evaluation{compiler: compiler, request: request, input: root.Value, limit: explainTime, prints: new(collector)}
	kept := e.prints.(*collector)
	t := newTracer(newReader(root, func(term *ast.Term) ast.Value {
		value, err := p.query(ctx, term, e.quiet())
		if err != nil {
			return nil
		}
		return value
	}))
	e.root, e.tracer = root, t
	_, denied := p.judge(ctx, e)
	x := Explanation{Denied: denied, Prints: kept.lines}
	if denied != nil {
		x.Causes = flatten(t.top(), nil, nil)
	}
	return x, nil
}

// flatten lists the conditions beneath failures, in their order.
func flatten(list []*failure, rules []string, out []Cause) []Cause {
	for _, f := range list {
		path := rules
		if f.rule != nil {
			path = append(path[:len(path):len(path)], f.rule.Head.Ref().String())
		}
		if len(f.causes) > 0 {
			out = flatten(f.causes, path, out)
			continue
		}
		if len(out) >= maxReasons {
			return out
		}
		c := Cause{Rules: path, Line: f.found.line, Text: f.found.text, Field: f.found.field, Given: f.found.given, Wanted: f.found.wanted}
		if !slices.ContainsFunc(out, func(have Cause) bool { return reflect.DeepEqual(have, c) }) {
			out = append(out, c)
		}
	}
	return out
}

// collector keeps printed lines up to its caps.
type collector struct{ lines []string }

// Print is called by the evaluation.
func (c *collector) Print(_ print.Context, line string) error {
	if len(c.lines) < maxPrints {
		c.lines = append(c.lines, line[:min(len(line), maxPrint)])
	}
	return nil
}
