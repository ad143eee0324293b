// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxIncident bounds one incident in bytes of JSON, MaxIncidents those of one message and MaxIncidentsSize the
	// message.
	MaxIncident      = 16 << 10
	MaxIncidents     = 8
	MaxIncidentsSize = MaxIncidents*(MaxIncident+1) + 128
	// MaxTicketAnswer bounds what keybroker answers to them.
	MaxTicketAnswer = 1 << 10

	// Of one incident: its error, each other text, the conditions and the values that each of them wanted, and the
	// lines that the policy printed.
	maxIncidentError  = 4 << 10
	maxIncidentText   = 512
	maxIncidentPrints = 20
	maxConditions     = 6
	maxWanted         = 8
)

// Incident is something that a guest refused or that failed in it, as it tells its relying party for the workload's
// owner (docs/security.md, rule 18). It holds no secret: errors have none, and the values are those that the host itself
// sent and those of the tenant's policy. No protocol but keybroker's has it.
type Incident struct {
	// Seq counts this guest's incidents from 1: a gap is what it could not keep.
	Seq uint64 `json:"seq"`
	// Ago is how long before it was sent it happened, in microseconds of the guest's clock, which the host can slow down.
	Ago   int64  `json:"ago_us"`
	Stage string `json:"stage"`
	// Request is the name of the request's message, Subject what it was about: an image, a volume, a container.
	Request string `json:"request,omitempty"`
	Subject string `json:"subject,omitempty"`
	Error   string `json:"error"`
	// Remedy is a command of the owner's that would let it pass.
	Remedy string `json:"remedy,omitempty"`
	// Repeated is how often it happened again before it was sent.
	Repeated   uint64              `json:"repeated,omitzero"`
	Conditions []IncidentCondition `json:"conditions,omitempty"`
	Prints     []string            `json:"printed,omitempty"`
}

// IncidentCondition is one condition of a policy that a request did not meet.
type IncidentCondition struct {
	Rules     []string `json:"rules,omitempty"`
	Line      int      `json:"line,omitzero"`
	Condition string   `json:"condition,omitempty"`
	Field     string   `json:"field,omitempty"`
	Given     string   `json:"given,omitempty"`
	Wanted    []string `json:"wanted,omitempty"`
}

// Incidents is one message of a guest.
type Incidents struct {
	// Dropped is how many incidents the guest could not keep since it booted.
	Dropped uint64     `json:"dropped,omitzero"`
	List    []Incident `json:"incidents"`
}

// Fit returns i shortened to MaxIncident: texts are cut first, and then printed lines and the conditions behind the
// first go. Bytes that are not UTF-8 are replaced.
func (i Incident) Fit() Incident {
	i.Stage, i.Request, i.Subject, i.Remedy = fitText(i.Stage), fitText(i.Request), fitText(i.Subject), cutText(i.Remedy, 4*maxIncidentText)
	i.Error = cutText(i.Error, maxIncidentError)
	i.Prints = fitTexts(i.Prints[max(0, len(i.Prints)-maxIncidentPrints):], maxIncidentPrints)
	conditions := i.Conditions[:min(len(i.Conditions), maxConditions)]
	i.Conditions = make([]IncidentCondition, 0, len(conditions))
	for _, c := range conditions {
		c.Rules, c.Wanted = fitTexts(c.Rules, maxWanted), fitTexts(c.Wanted, maxWanted)
		c.Condition, c.Field, c.Given = fitText(c.Condition), fitText(c.Field), fitText(c.Given)
		i.Conditions = append(i.Conditions, c)
	}
	for i.size() > MaxIncident {
		switch {
		case len(i.Conditions) > 1:
			i.Conditions = i.Conditions[:len(i.Conditions)-1]
		case len(i.Prints) > 0:
			i.Prints = i.Prints[1:]
		case len(i.Conditions) > 0:
			i.Conditions = nil
		default: // every byte is escaped
			i.Error, i.Remedy = cutText(i.Error, maxIncidentText), ""
			return i
		}
	}
	return i
}

// size is that of i on the wire, with what Seq, Ago and Repeated may grow to.
func (i Incident) size() int {
	raw, err := json.Marshal(i)
	if err != nil { // its texts are UTF-8 by now
		return MaxIncident + 1
	}
	return len(raw) + 80
}

func fitText(s string) string { return cutText(s, maxIncidentText) }

func fitTexts(list []string, n int) []string {
	out := make([]string, 0, min(len(list), n))
	for _, s := range list[:min(len(list), n)] {
		out = append(out, fitText(s))
	}
	return out
}

// cutText returns at most limit bytes of s and a mark for what is missing.
func cutText(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// Encode returns the wire form. Each incident was made to Fit, and there are at most MaxIncidents.
func (m Incidents) Encode() ([]byte, error) {
	if m.List == nil {
		m.List = []Incident{}
	}
	raw, err := json.Marshal(m)
	if err == nil && len(raw) > MaxIncidentsSize {
		err = fmt.Errorf("%d bytes, at most %d allowed", len(raw), MaxIncidentsSize)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding incidents: %w", err)
	}
	return raw, nil
}

// ParseIncidents reads a message of at most MaxIncidentsSize from a guest that may send anything. A member that is
// unknown or occurs twice, text that is not UTF-8, more than MaxIncidents and one of more than MaxIncident are errors.
func ParseIncidents(raw []byte) (Incidents, error) {
	var m struct {
		Dropped uint64           `json:"dropped"`
		List    []jsontext.Value `json:"incidents"`
	}
	if len(raw) > MaxIncidentsSize {
		return Incidents{}, fmt.Errorf("reading incidents: %d bytes, at most %d allowed", len(raw), MaxIncidentsSize)
	}
	if err := json.Unmarshal(raw, &m, json.RejectUnknownMembers(true)); err != nil {
		return Incidents{}, fmt.Errorf("reading incidents: %w", err)
	}
	if m.List == nil || len(m.List) > MaxIncidents {
		return Incidents{}, fmt.Errorf("reading incidents: %d of them, want a list of at most %d", len(m.List), MaxIncidents)
	}
	list := make([]Incident, len(m.List))
	for n, one := range m.List {
		if len(one) > MaxIncident {
			return Incidents{}, fmt.Errorf("reading incident %d: %d bytes, at most %d allowed", n, len(one), MaxIncident)
		}
		if err := json.Unmarshal(one, &list[n], json.RejectUnknownMembers(true)); err != nil {
			return Incidents{}, fmt.Errorf("reading incident %d: %w", n, err)
		}
		if list[n].Stage == "" || list[n].Seq == 0 || list[n].Ago < 0 {
			return Incidents{}, fmt.Errorf("reading incident %d: want a stage, a number from 1 and a time that has passed", n)
		}
	}
	return Incidents{Dropped: m.Dropped, List: list}, nil
}

// Ticket is what keybroker answers to incidents: a text by which this guest may send more of them, and nothing else,
// when its session is over. At most MaxTicketAnswer bytes of JSON.
type Ticket struct {
	Ticket string `json:"ticket"`
}

// Encode returns the wire form.
func (t Ticket) Encode() ([]byte, error) { return json.Marshal(t) }

// ParseTicket reads what Encode wrote: printable ASCII, since it goes into a header.
func ParseTicket(raw []byte) (Ticket, error) {
	var t Ticket
	if err := json.Unmarshal(raw, &t, json.RejectUnknownMembers(true)); err != nil {
		return Ticket{}, fmt.Errorf("reading a ticket: %w", err)
	}
	if t.Ticket == "" || strings.ContainsFunc(t.Ticket, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Ticket{}, fmt.Errorf("reading a ticket: want printable ASCII")
	}
	return t, nil
}
