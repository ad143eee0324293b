// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

func generation(number uint64, id byte) evidence.Generation {
	return evidence.Generation{Number: number, ID: [evidence.GenerationIDSize]byte{id}}
}

// A counter goes from what it is to something higher, and in no other way.
func TestCounters(t *testing.T) {
	dir := newDir(t)
	s := open(t, dir)
	if _, err := s.Counter("a", "v"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	one, two, three := generation(1, 1), generation(2, 2), generation(3, 3)
	for _, step := range []struct {
		from, to, want evidence.Generation
	}{
		{one, two, evidence.Generation{}},           // there is none yet
		{evidence.Generation{}, one, one},           // begin
		{evidence.Generation{}, two, one},           // begin again
		{evidence.Generation{}, one, one},           // an answer that got lost
		{one, three, three},                         // raise
		{one, two, three},                           // an older one
		{generation(3, 9), generation(4, 1), three}, // the right number of another copy
		{three, two, three},                         // down
		{three, generation(3, 4), three},            // aside
	} {
		got, err := s.RaiseCounter("a", "v", evidence.CounterChange{From: step.from, To: step.to})
		if err != nil || got != (evidence.Counter{Generation: step.want}) {
			t.Errorf("from %v to %v: %+v, %v, want %v", step.from, step.to, got, err, step.want)
		}
	}
	must(t, s.Close())
	s = open(t, dir)
	if got, err := s.Counter("a", "v"); err != nil || got.Generation != three {
		t.Errorf("after reopening: %+v, %v", got, err)
	}
	if _, err := s.Counter("b", "v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another workload's: %v", err)
	}
}

// A reset is used up by the change that follows it.
func TestResetCounter(t *testing.T) {
	s := open(t, newDir(t))
	must(t, s.ResetCounter("a", "v"))
	must(t, s.ResetCounter("a", "w"))
	if got, err := s.Counter("a", "v"); err != nil || got != (evidence.Counter{Reset: true}) {
		t.Fatal(got, err)
	}
	got, err := s.RaiseCounter("a", "v", evidence.CounterChange{To: generation(7, 1)})
	if err != nil || got != (evidence.Counter{Generation: generation(7, 1)}) {
		t.Fatal(got, err)
	}
	must(t, s.ResetCounter("a", "v"))
	list, err := s.Counters("a")
	if err != nil || len(list) != 2 || list[0] != (owner.Counter{Volume: "v", Generation: 7, Reset: true}) || list[1] != (owner.Counter{Volume: "w", Reset: true}) {
		t.Errorf("%+v, %v", list, err)
	}
	_, err = s.PutWorkload(registration("a"))
	must(t, err)
	must(t, s.DeleteWorkload("a"))
	if list, err := s.Counters("a"); err != nil || len(list) != 0 {
		t.Errorf("left of a removed workload: %+v, %v", list, err)
	}
}

// Of many that raise one counter from the same generation one does it.
func TestCountersAtOnce(t *testing.T) {
	s := open(t, newDir(t))
	var wg sync.WaitGroup
	won := make([]bool, 8)
	for i := range won {
		wg.Go(func() {
			to := generation(1, byte(i)+1)
			c, err := s.RaiseCounter("a", "v", evidence.CounterChange{To: to})
			won[i] = err == nil && c.Generation == to
		})
	}
	wg.Wait()
	n := 0
	for _, w := range won {
		if w {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of %d have raised the counter", n, len(won))
	}
}

// A workload's guests fill no more than their share.
func TestCountersFull(t *testing.T) {
	s := open(t, newDir(t))
	s.db.NoSync = true
	for i := range maxCounters {
		must(t, s.ResetCounter("a", fmt.Sprintf("v%d", i)))
	}
	if _, err := s.RaiseCounter("a", "more", evidence.CounterChange{To: generation(1, 1)}); !errors.Is(err, ErrCountersFull) {
		t.Error(err)
	}
	must(t, s.ResetCounter("a", "v0"))
	must(t, s.ResetCounter("b", "v0"))
}
