// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRaiseClock(t *testing.T) {
	floor := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	refused := errors.New("refused")
	for _, tt := range []struct {
		name   string
		now    time.Time
		set    error
		deaf   bool // setting changes nothing
		raised bool
		err    string
	}{
		{name: "1970", now: time.Unix(0, 0), raised: true},
		{name: "a second before", now: floor.Add(-time.Second), raised: true},
		{name: "at the floor", now: floor},
		{name: "2100", now: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		{name: "cannot be set", now: time.Unix(0, 0), set: refused, err: "2026-11-01: refused"},
		{name: "set in vain", now: time.Unix(0, 0), deaf: true, err: "no effect"},
	} {
		clock := tt.now
		raised, err := raiseClock(floor, func() time.Time { return clock }, func(to time.Time) error {
			if !tt.deaf && tt.set == nil {
				clock = to
			}
			return tt.set
		})
		if raised != tt.raised || tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, %v", tt.name, raised, err)
		}
		if tt.raised != clock.Equal(floor) && tt.name != "at the floor" {
			t.Errorf("%s: the clock says %s", tt.name, clock)
		}
	}
}

func TestStepText(t *testing.T) {
	s := Step{Name: "modules", Took: 1080449 * time.Microsecond, At: 17530111 * time.Microsecond}
	if got := s.String(); got != "modules 1.0804s at 17.53s" {
		t.Errorf("got %q", got)
	}
	if s := NewStep("x", time.Now()); s.At <= 0 {
		t.Errorf("a step before the machine was switched on: %+v", s)
	}
}
