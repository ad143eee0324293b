// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func largeIncident(text string) Incident {
	many := make([]string, 100)
	for n := range many {
		many[n] = strings.Repeat(text, 5000)
	}
	i := Incident{Stage: many[0], Request: many[0], Subject: many[0], Error: many[0], Remedy: many[0], Prints: many}
	for range 100 {
		i.Conditions = append(i.Conditions, IncidentCondition{Rules: many, Condition: many[0], Field: many[0], Given: many[0], Wanted: many, Line: 1 << 40})
	}
	return i
}

func TestIncidentFits(t *testing.T) {
	for name, text := range map[string]string{"plain": "a", "escaped": "\x01", "wide": "é", "not UTF-8": "\xff", "markup": "<&>"} {
		i := largeIncident(text).Fit()
		i.Seq, i.Ago, i.Repeated = 1<<64-1, 1<<63-1, 1<<64-1
		raw, err := json.Marshal(i)
		if err != nil || len(raw) > MaxIncident {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
		m := Incidents{Dropped: 1<<64 - 1}
		for range MaxIncidents {
			m.List = append(m.List, i)
		}
		wire, err := m.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if back, err := ParseIncidents(wire); err != nil || len(back.List) != MaxIncidents || back.List[0].Error != i.Error {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := Incident{Seq: 7, Stage: "policy", Error: "denied", Prints: []string{"x"}, Conditions: []IncidentCondition{{Rules: []string{"r"}, Wanted: []string{"w"}}}}
	if got := small.Fit(); !reflect.DeepEqual(got, small) {
		t.Errorf("a small one was changed: %+v", got)
	}
}

func TestParseIncidentsRefuses(t *testing.T) {
	const one = `{"seq":1,"ago_us":0,"stage":"pull","error":"e"}`
	if _, err := ParseIncidents([]byte(`{"incidents":[` + one + `]}`)); err != nil {
		t.Fatal(err)
	}
	if m, err := ParseIncidents([]byte(`{"incidents":[]}`)); err != nil || len(m.List) != 0 {
		t.Fatal(m, err)
	}
	for name, raw := range map[string]string{
		"nothing": "", "no list": `{}`, "null": `{"incidents":null}`, "cut": `{"incidents":[`, "two values": `{"incidents":[]}{}`,
		"too many":            `{"incidents":[` + strings.Repeat(one+",", MaxIncidents) + one + `]}`,
		"one too large":       `{"incidents":[{"seq":1,"ago_us":0,"stage":"pull","error":"` + strings.Repeat("x", MaxIncident) + `"}]}`,
		"all too large":       `{"incidents":[]` + strings.Repeat(" ", MaxIncidentsSize) + `}`,
		"unknown member":      `{"incidents":[],"extra":1}`,
		"unknown in one":      `{"incidents":[{"seq":1,"ago_us":0,"stage":"pull","error":"e","key":"k"}]}`,
		"another case":        `{"Incidents":[]}`,
		"twice":               `{"incidents":[],"incidents":[]}`,
		"no stage":            `{"incidents":[{"seq":1,"ago_us":0,"error":"e"}]}`,
		"no number":           `{"incidents":[{"ago_us":0,"stage":"pull","error":"e"}]}`,
		"in the future":       `{"incidents":[{"seq":1,"ago_us":-1,"stage":"pull","error":"e"}]}`,
		"number as text":      `{"incidents":[{"seq":"1","ago_us":0,"stage":"pull","error":"e"}]}`,
		"not UTF-8":           "{\"incidents\":[{\"seq\":1,\"ago_us\":0,\"stage\":\"pull\",\"error\":\"\xff\"}]}",
		"negative number":     `{"incidents":[{"seq":-1,"ago_us":0,"stage":"pull","error":"e"}]}`,
		"a list of no object": `{"incidents":[1]}`,
	} {
		if _, err := ParseIncidents([]byte(raw)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestParseTicketRefuses(t *testing.T) {
	raw, err := Ticket{"a:b"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseTicket(raw); err != nil || got.Ticket != "a:b" {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, raw := range []string{"", `{}`, `{"ticket":""}`, `{"ticket":"a\nb"}`, `{"ticket":"é"}`, `{"ticket":"a","x":1}`} {
		if _, err := ParseTicket([]byte(raw)); err == nil {
			t.Errorf("%s was read", raw)
		}
	}
}

func FuzzParseIncidents(f *testing.F) {
	f.Add([]byte(`{"dropped":1,"incidents":[{"seq":1,"ago_us":0,"stage":"pull","error":"e","conditions":[{"rules":["r"],"wanted":["w"]}],"printed":["p"]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseIncidents(raw)
		if err != nil {
			return
		}
		for n := range m.List {
			m.List[n] = m.List[n].Fit()
		}
		wire, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseIncidents(wire); err != nil {
			t.Fatal(err)
		}
	})
}
