// SPDX-License-Identifier: Apache-2.0

package incidents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
)

// party is a relying party. Its fields are used in one bubble.
type party struct {
	mu    sync.Mutex // guards err and delay
	told  []evidence.Incidents
	at    []time.Time
	calls int
	err   error
	delay time.Duration
}

func (p *party) Tell(ctx context.Context, raw []byte) error {
	p.mu.Lock()
	err, delay := p.err, p.delay
	p.mu.Unlock()
	p.calls++
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	m, err := evidence.ParseIncidents(raw)
	if err != nil {
		panic(err)
	}
	p.told, p.at = append(p.told, m), append(p.at, time.Now())
	return nil
}

// fail has p answer with err from now on, nil for not at all.
func (p *party) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// seqs are the numbers of all incidents that arrived.
func (p *party) seqs() (list []uint64) {
	for _, m := range p.told {
		for _, i := range m.List {
			list = append(list, i.Seq)
		}
	}
	return list
}

// bubble runs f with a Reporter that sends, in a time of its own.
func bubble(t *testing.T, f func(t *testing.T, r *Reporter)) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := New(slog.New(slog.DiscardHandler), func() time.Duration { return time.Since(start) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(ctx)
		}()
		f(t, r)
		cancel()
		<-done
	})
}

// settle lets time pass, and then all be done that it has begun.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func incident(n int) evidence.Incident {
	return evidence.Incident{Stage: "pull", Subject: fmt.Sprint("image ", n), Error: "no"}
}

// What happens before the first session is told with it, the last that there is place for, and the rest is counted.
func TestKeptUntilTheFirstSession(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		for n := range MaxKept + 5 {
			r.Add(incident(n))
		}
		settle(time.Hour)
		p := new(party)
		r.Use(p)
		settle(time.Minute)
		got := p.seqs()
		if len(got) != MaxKept || got[0] != 6 || got[MaxKept-1] != MaxKept+5 {
			t.Errorf("told %v", got)
		}
		first := p.told[0]
		if first.Dropped != 5 || len(first.List) != evidence.MaxIncidents || first.List[0].Ago != (time.Hour+gather).Microseconds() {
			t.Errorf("the first message: %+v", first)
		}
	})
}

// The relying party is greeted once, so that there is a ticket when something happens after the session's end.
func TestGreeting(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		p := new(party)
		r.Use(p)
		r.Use(p)
		settle(time.Hour)
		if p.calls != 1 || len(p.told[0].List) != 0 {
			t.Errorf("told %+v", p.told)
		}
		r.Add(incident(1))
		settle(time.Second)
		if p.calls != 2 || len(p.told[1].List) != 1 {
			t.Errorf("told %+v", p.told)
		}
	})
}

// A host that has requests denied without end gets one incident, or messages at their own pace.
func TestFloodIsPaced(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		p := new(party)
		r.Use(p)
		for range 100000 {
			r.Add(incident(1))
		}
		settle(time.Second)
		if got := p.seqs(); len(got) != 1 || p.told[len(p.told)-1].List[0].Repeated != 99999 {
			t.Errorf("told %v", got)
		}
		before := p.calls
		start := time.Now()
		for n := range 36000 { // ten a second for an hour, all different
			r.Add(incident(n + 2))
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		most := paceBurst + int(time.Since(start)/paceEvery) + 1
		if sent := p.calls - before; sent > most || sent < most/2 {
			t.Errorf("%d messages in %v, want at most %d", sent, time.Since(start), most)
		}
		if last := p.told[len(p.told)-1]; last.Dropped < 30000 {
			t.Errorf("%d were dropped", last.Dropped)
		}
	})
}

// The memory that waits is bounded, whatever comes.
func TestKeptIsBounded(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler), func() time.Duration { return 0 })
	large := strings.Repeat("\x01", 1<<20)
	for n := range 3 * MaxKept {
		i := evidence.Incident{Stage: large, Error: fmt.Sprint(n) + large, Prints: []string{large, large}}
		for range 50 {
			i.Conditions = append(i.Conditions, evidence.IncidentCondition{Rules: []string{large}, Wanted: []string{large}, Given: large})
		}
		r.Add(i)
	}
	size := 0
	for _, k := range r.kept {
		raw, err := (evidence.Incidents{List: []evidence.Incident{k.Incident}}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		size += len(raw)
	}
	if len(r.kept) != MaxKept || size > MaxKept*(evidence.MaxIncident+64) || r.dropped != 2*MaxKept {
		t.Errorf("%d are kept, %d bytes, %d dropped", len(r.kept), size, r.dropped)
	}
}

// A relying party without the path is asked once in its life, and nothing is kept for it.
func TestAnotherRelyingParty(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		p := &party{err: fmt.Errorf("telling: %w", kbs.ErrNotServed)}
		r.Use(p)
		settle(time.Second)
		for n := range 10 {
			r.Add(incident(n))
			r.Use(p)
			r.Use(new(party))
			settle(time.Minute)
		}
		if p.calls != 1 || len(r.kept) != 0 {
			t.Errorf("%d calls, %d kept", p.calls, len(r.kept))
		}
	})
}

// A message is tried a few times, ever later, and then gone; the next has its own tries.
func TestTriesEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		p := new(party)
		r.Use(p)
		settle(time.Second)
		p.fail(errors.New("nobody answers"))
		r.Add(incident(1))
		settle(time.Hour)
		if p.calls != 1+maxTries || r.dropped != 1 {
			t.Errorf("%d calls, %d dropped", p.calls, r.dropped)
		}
		r.Add(incident(2))
		settle(time.Second)
		p.fail(nil)
		settle(time.Minute)
		if got := p.seqs(); len(got) != 1 || got[0] != 2 || p.told[1].Dropped != 1 {
			t.Errorf("told %+v", p.told)
		}
	})
}

// A sender whose session is over is replaced by the next that has one; what it did not take is not lost.
func TestNextSession(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		first, second := new(party), new(party)
		r.Use(first)
		settle(time.Second)
		over := fmt.Errorf("telling: %w", kbs.ErrNoSession)
		first.fail(over)
		r.Add(incident(1))
		settle(24 * time.Hour)
		if first.calls != 2 {
			t.Errorf("%d calls without a session", first.calls)
		}
		r.Use(second)
		settle(time.Second)
		r.Use(first) // waits for its turn
		if got := second.seqs(); len(got) != 1 || got[0] != 1 {
			t.Errorf("told %v", got)
		}
		second.fail(over)
		first.fail(nil)
		r.Add(incident(2))
		settle(time.Second)
		if got := first.seqs(); len(got) != 1 || got[0] != 2 {
			t.Errorf("told %v", got)
		}
	})
}

// At the end what waits is told at once, and for no longer than there is time; Add waits for nobody meanwhile.
func TestFlush(t *testing.T) {
	bubble(t, func(t *testing.T, r *Reporter) {
		p := new(party)
		r.Use(p)
		settle(time.Second)
		for n := range 20 {
			r.Add(incident(n))
		}
		r.Flush(t.Context())
		if got := p.seqs(); len(got) != 20 {
			t.Errorf("told %v", got)
		}
		p.mu.Lock()
		p.delay = time.Hour
		p.mu.Unlock()
		r.Add(incident(30))
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Flush(limited)
		}()
		synctest.Wait()
		r.Add(incident(31))
		if took := time.Since(start); took != 0 {
			t.Errorf("Add waited %v", took)
		}
		<-done
		if took := time.Since(start); took > time.Second {
			t.Errorf("Flush took %v", took)
		}
	})
	none := (*Reporter)(nil)
	none.Add(incident(1))
	none.Use(new(party))
	none.Run(t.Context())
	none.Flush(t.Context())
}
