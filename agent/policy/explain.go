// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/topdown/print"
	"google.golang.org/protobuf/proto"
)

const (
	// maxPrints bounds the lines that one explanation keeps, maxPrint the bytes of one.
	maxPrints = 1000
	maxPrint  = 4 << 10
)

// Explanation is a decision with what the policy printed on the way. Prints quote the request and the policy: they
// are for the tenant, never for the host, its console or a log (docs/security.md, rule 18).
type Explanation struct {
	Denied error // nil when allowed
	Prints []string
}

// Explain judges msg against the present state without changing it.
func (p *Policy) Explain(ctx context.Context, request string, msg proto.Message) (Explanation, error) {
	compiler, _, err := compile(p.text, p.version, true)
	if err != nil {
		return Explanation{}, fmt.Errorf("compiling policy with its prints: %w", err)
	}
	input, err := inputOf(msg)
	if err != nil {
		return Explanation{}, err
	}
	if err := p.take(ctx); err != nil {
		return Explanation{}, fmt.Errorf("waiting for the policy: %w", err)
	}
	defer p.give()
	kept := new(collector)
	_, denied := p.judge(ctx, evaluation{compiler, request, input, kept})
	return Explanation{Denied: denied, Prints: kept.lines}, nil
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
