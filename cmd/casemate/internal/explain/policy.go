// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/agent/policy"
)

const (
	// shownCauses is how many conditions a person is shown, shownPrints how many lines of the policy's own, the last
	// ones; JSON has them all.
	shownCauses = 6
	shownPrints = 20
)

// PolicyDenial says why a request was refused.
type PolicyDenial struct {
	Request string `json:"request"`
	Allowed bool   `json:"allowed"`
	// Reason is what the host read, Again what the decision said when it was made again.
	Reason string         `json:"reason,omitempty"`
	Again  string         `json:"again,omitempty"`
	Causes []policy.Cause `json:"conditions"`
	Prints []string       `json:"printed"`
}

// NewPolicyDenial puts a denial and its explanation together.
func NewPolicyDenial(d policy.Denial, x policy.Explanation) *PolicyDenial {
	p := &PolicyDenial{Request: d.Request, Allowed: x.Denied == nil, Causes: x.Causes, Prints: x.Prints}
	if d.Reason.Code != "" {
		p.Reason = d.Reason.String()
	}
	if x.Denied != nil {
		p.Again = x.Denied.Error()
	}
	return p
}

// PrintJSON writes it as one JSON document.
func (p *PolicyDenial) PrintJSON(w io.Writer) error {
	if err := json.MarshalWrite(w, p, jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("printing the explanation: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// Print writes it for a person.
func (p *PolicyDenial) Print(w io.Writer) error {
	var b strings.Builder
	switch {
	case p.Allowed:
		fmt.Fprintf(&b, "%s: allowed\n", plain(p.Request))
	case len(p.Causes) == 0:
		fmt.Fprintf(&b, "%s: %s\n", plain(p.Request), plain(p.Again))
		row(&b, "rule", "the policy has none for this request, or only a default")
	default:
		fmt.Fprintf(&b, "%s: %s\n", plain(p.Request), plain(p.Again))
	}
	for i, c := range p.Causes[:min(len(p.Causes), shownCauses)] {
		if i > 0 {
			b.WriteString("or\n")
		}
		cause(&b, c)
	}
	if more := len(p.Causes) - shownCauses; more > 0 {
		fmt.Fprintf(&b, "and %d more conditions: --json shows them\n", more)
	}
	if n := len(p.Prints); n > 0 {
		b.WriteString("the policy printed\n")
		for _, line := range p.Prints[max(0, n-shownPrints):] {
			b.WriteString("  " + plain(line) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cause(b *strings.Builder, c policy.Cause) {
	row(b, "rule", strings.Join(c.Rules, " > "))
	if c.Line > 0 {
		row(b, "condition", fmt.Sprintf("line %d: %s", c.Line, c.Text))
	}
	if c.Field != "" {
		row(b, "field", c.Field)
	}
	if c.Given != "" {
		row(b, "given", c.Given)
	}
	for i, w := range c.Wanted {
		name := "wanted"
		if i > 0 {
			name = "or"
		}
		row(b, name, w)
	}
}
