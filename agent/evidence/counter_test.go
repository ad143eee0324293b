// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"math"
	"strings"
	"testing"
)

func TestCounterRoundTrip(t *testing.T) {
	g := Generation{math.MaxUint64, [16]byte{1, 15: 0xff}}
	for _, c := range []Counter{{}, {g, true}, {g, false}} {
		if got, err := ParseCounter(c.Encode()); err != nil || got != c || len(c.Encode()) > MaxCounterSize {
			t.Errorf("%+v became %+v: %v", c, got, err)
		}
	}
	c := CounterChange{From: Generation{Number: math.MaxUint64 - 1, ID: g.ID}, To: g}
	if got, err := ParseCounterChange(c.Encode()); err != nil || got != c || len(c.Encode()) > MaxCounterSize {
		t.Errorf("%+v became %+v: %v", c, got, err)
	}
}

// What is missing, repeated or unknown is refused, and so is a counter that would not rise.
func TestHostileCounters(t *testing.T) {
	zero := strings.Repeat("00", GenerationIDSize)
	gen := func(n string) string { return `{"number":` + n + `,"id":"` + zero + `"}` }
	for _, raw := range []string{
		``, `[]`, `{}`, `{"generation":` + gen("1") + `}`, `{"reset":false}`,
		`{"generation":` + gen("-1") + `,"reset":false}`, `{"generation":` + gen("1.0") + `,"reset":false}`,
		`{"generation":` + gen("18446744073709551616") + `,"reset":false}`, `{"generation":` + gen(`"1"`) + `,"reset":false}`,
		`{"generation":` + gen("1") + `,"reset":null}`, `{"generation":` + gen("1") + `,"reset":"true"}`, `{"generation":` + gen("1") + `,"reset":1}`,
		`{"generation":` + gen("1") + `,"Reset":false}`, `{"generation":` + gen("1") + `,"reset":false,"x":1}`,
		`{"generation":` + gen("1") + `,"reset":false,"reset":true}`,
		`{"generation":{"number":1,"id":"00"},"reset":false}`, `{"generation":{"number":1,"id":"` + zero + `00"},"reset":false}`,
		`{"generation":{"number":1,"id":"` + zero[1:] + `x"},"reset":false}`, `{"generation":{"number":1},"reset":false}`,
		`{"generation":{"number":1,"id":"` + zero + `","x":0},"reset":false}`,
		`{"generation":` + gen("1") + `,"reset":false}` + strings.Repeat(" ", MaxCounterSize),
	} {
		if c, err := ParseCounter([]byte(raw)); err == nil {
			t.Errorf("%s: read as %+v", raw, c)
		}
	}
	for _, raw := range []string{
		`{}`, `{"from":` + gen("1") + `}`, `{"to":` + gen("1") + `}`, `{"from":` + gen("1") + `,"to":` + gen("1") + `}`,
		`{"from":` + gen("2") + `,"to":` + gen("1") + `}`, `{"from":` + gen("0") + `,"to":` + gen("0") + `}`, `{"from":null,"to":` + gen("1") + `}`,
	} {
		if c, err := ParseCounterChange([]byte(raw)); err == nil {
			t.Errorf("%s: read as %+v", raw, c)
		}
	}
}

func FuzzCounter(f *testing.F) {
	g := Generation{7, [16]byte{1}}
	f.Add(Counter{Generation: g, Reset: true}.Encode())
	f.Add(CounterChange{From: g, To: Generation{Number: 8}}.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c, err := ParseCounter(raw); err == nil {
			if again, err := ParseCounter(c.Encode()); err != nil || again != c {
				t.Errorf("%+v became %+v: %v", c, again, err)
			}
		}
		if c, err := ParseCounterChange(raw); err == nil {
			if again, err := ParseCounterChange(c.Encode()); err != nil || again != c || c.To.Number <= c.From.Number {
				t.Errorf("%+v became %+v: %v", c, again, err)
			}
		}
	})
}
