// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/casemate/casemate/agent"
)

// MaxDenial bounds an encoded [Denial] in bytes; a larger request is kept without its document.
const MaxDenial = 4 << 20

// Denial is a denied request with all that the decision rested on, so that it can be made again elsewhere. It holds
// the request's own environment and the tenant's policy: it is for the tenant's eyes (docs/security.md, rule 18).
type Denial struct {
	Request string // name of the request's message
	Reason  agent.Reason
	// Text is the policy's source; none means the built-in one.
	Text []byte
	// Causes are those of a denial that code behind the policy decided: there is nothing to judge again.
	Causes []Cause
	input  ast.Value
	state  map[string]any
}

// Remedy is the owner's command that would let the request pass, "" where none is known; said is the phrase without it.
func (d Denial) Remedy() (said, remedy string) {
	said, remedy, _ = strings.Cut(d.Reason.Phrase, openingText)
	return said, remedy
}

// Subject is what the request names: a container's id, else a path, else "".
func (d Denial) Subject() string {
	object, ok := d.input.(ast.Object)
	if !ok {
		return ""
	}
	for _, name := range []string{"container_id", "path"} {
		if term := object.Get(ast.StringTerm(name)); term != nil {
			if text, ok := term.Value.(ast.String); ok {
				return string(text)
			}
		}
	}
	return ""
}

// Same reports whether o is the same request, denied by the same policy in the same state: its explanation is this one's.
func (d Denial) Same(o Denial) bool {
	return d.Request == o.Request && d.input != nil && o.input != nil && len(d.Causes) == 0 && len(o.Causes) == 0 &&
		bytes.Equal(d.Text, o.Text) && d.input.Compare(o.input) == 0 && reflect.DeepEqual(d.state, o.state)
}

// Watch has f called with each denial that the policy decides. f must not block. It is called before the policy is
// used.
func (p *Policy) Watch(f func(Denial)) { p.watch = f }

// denied tells the watcher. The caller has the turn; neither value is changed later.
func (p *Policy) denied(e evaluation, err error) {
	var d *agent.Denial
	if p.watch != nil && errors.As(err, &d) {
		p.watch(Denial{Request: e.request, Reason: d.Reason, Text: p.text, input: e.input, state: p.state})
	}
}

// saved is the form of a denial in a file. All but request may be left out: the policy is then the built-in one.
type saved struct {
	Request string         `json:"request"`
	Code    string         `json:"code,omitempty"`
	Phrase  string         `json:"phrase,omitempty"`
	Input   jsontext.Value `json:"input,omitempty"`
	State   jsontext.Value `json:"state,omitempty"`
	Policy  string         `json:"policy,omitempty"`
	Causes  []Cause        `json:"causes,omitempty"`
}

// Encode returns the denial as JSON of at most MaxDenial bytes.
func (d Denial) Encode() ([]byte, error) {
	s := saved{Request: d.Request, Code: d.Reason.Code, Phrase: d.Reason.Phrase, Policy: string(d.Text), Causes: d.Causes}
	if len(d.Causes) > 0 {
		return s.encode()
	}
	plain, err := ast.JSON(d.input)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	// The library's numbers are texts to any encoder but the standard one.
	if s.Input, err = json.Marshal(plain); err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	if s.State, err = json.Marshal(d.state); err != nil {
		return nil, fmt.Errorf("encoding the policy's state: %w", err)
	}
	if len(s.Input)+len(s.State)+2*len(s.Policy) > MaxDenial { // most of a policy's bytes stand for themselves
		s.Input = nil
	}
	return s.encode()
}

func (s saved) encode() ([]byte, error) {
	raw, err := jsonx.Marshal(s)
	if err == nil && len(raw) > MaxDenial {
		err = fmt.Errorf("%d bytes, at most %d allowed", len(raw), MaxDenial)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the denial: %w", err)
	}
	return raw, nil
}

// ParseDenial reads what Encode wrote, or what an owner wrote by hand in that form: {"request", "input", "state",
// "policy"}. input is the document that policies read.
func ParseDenial(raw []byte) (Denial, error) {
	var s saved
	if len(raw) > MaxDenial {
		return Denial{}, fmt.Errorf("reading the denial: %d bytes, at most %d allowed", len(raw), MaxDenial)
	}
	if err := jsonx.Unmarshal(raw, &s, jsonx.RejectUnknownMembers(true)); err != nil {
		return Denial{}, fmt.Errorf("reading the denial: %w", err)
	}
	d := Denial{Request: s.Request, Reason: agent.Reason{Code: s.Code, Phrase: s.Phrase}, Text: []byte(s.Policy), Causes: s.Causes}
	if err := d.SetInput(s.Input); err != nil {
		return Denial{}, err
	}
	return d, d.setState(s.State)
}

// SetInput makes raw, a JSON object, the request's document; none leaves the denial without.
func (d *Denial) SetInput(raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	v, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	if _, ok := v.(ast.Object); !ok {
		return errors.New("reading the request: want a JSON object")
	}
	d.input = v
	return nil
}

func (d *Denial) setState(raw []byte) error {
	if len(raw) == 0 {
		d.state = map[string]any{}
		return nil
	}
	if err := util.UnmarshalJSON(raw, &d.state); err != nil {
		return fmt.Errorf("reading the policy's state: %w", err)
	}
	if d.state == nil {
		return errors.New("reading the policy's state: want a JSON object")
	}
	return nil
}

// Explain makes the decision again, on the same request, state and policy, by the same code, and listens to it.
func (d Denial) Explain(ctx context.Context) (Explanation, error) {
	if len(d.Causes) > 0 {
		return Explanation{Denied: &agent.Denial{Reason: d.Reason}, Causes: d.Causes}, nil
	}
	if d.Request == "" || d.input == nil {
		return Explanation{}, errors.New("explaining a denial: want the request's name and its document; one that is too large is not kept")
	}
	text := d.Text
	if len(text) == 0 {
		text = builtinText
	}
	p, err := loadOnce(text)
	if err != nil {
		return Explanation{}, err
	}
	if err := p.write(ctx, d.state); err != nil {
		return Explanation{}, fmt.Errorf("restoring the policy's state: %w", err)
	}
	return p.explain(ctx, d.Request, d.input)
}
