// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/cmd/casemate/internal/incidents"
)

const (
	// maxExplains is how many denied requests wait to be explained, with their documents of a few MiB at most.
	maxExplains = 4
	// explainCredit is the time that explaining may take at once, some ten requests long, and after that a twentieth of
	// all that goes by: a host can have any number of requests denied, and each explanation takes megabytes.
	explainCredit = 250 * time.Millisecond
	explainShare  = 20
	// explainTime ends one explanation.
	explainTime = 5 * time.Second
)

// explainer finds out why requests were denied, beside what the guest does, and has the relying party told. Its zero
// value is ready.
type explainer struct {
	mu      sync.Mutex // guards the fields up to at
	waiting []policy.Denial
	done    chan struct{} // closed when none waits any more; nil while none does
	spent   time.Duration
	at      time.Time // when spent was last lowered

	// The last one, which a runtime that tries again asks for again; for run alone.
	last  policy.Denial
	found policy.Explanation
}

// take has a denial told of, and waits for nothing. One that cannot be explained now is told of without its conditions.
func (e *explainer) take(r *incidents.Reporter, d policy.Denial) {
	if r == nil {
		return
	}
	if len(d.Causes) > 0 {
		r.Add(denialIncident(d, policy.Explanation{Causes: d.Causes}))
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= maxExplains || !e.affords(time.Now()) {
		r.Add(denialIncident(d, policy.Explanation{}))
		return
	}
	e.waiting = append(e.waiting, d)
	if e.done == nil {
		e.done = make(chan struct{})
		go e.run(r)
	}
}

// affords reports whether there is time left to explain by. The caller holds mu.
func (e *explainer) affords(now time.Time) bool {
	e.spent, e.at = max(0, e.spent-now.Sub(e.at)/explainShare), now
	return e.spent < explainCredit
}

// run explains what waits until nothing does.
func (e *explainer) run(r *incidents.Reporter) {
	for {
		e.mu.Lock()
		if len(e.waiting) == 0 {
			close(e.done)
			e.waiting, e.done = nil, nil
			e.mu.Unlock()
			return
		}
		d := e.waiting[0]
		e.waiting = e.waiting[1:]
		can := e.affords(time.Now())
		e.mu.Unlock()
		var x policy.Explanation
		switch {
		case d.Same(e.last):
			x = e.found
		case can:
			x = e.explain(d)
			e.last, e.found = d, x
		}
		r.Add(denialIncident(d, x))
	}
}

// explain is d.Explain at the cost of the explainer's time; one that fails says nothing.
func (e *explainer) explain(d policy.Denial) policy.Explanation {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), explainTime)
	defer cancel()
	x, err := d.Explain(ctx)
	if err != nil {
		x = policy.Explanation{}
	}
	e.mu.Lock()
	e.spent += time.Since(began)
	e.mu.Unlock()
	return x
}

// drain tells of what waits, without more explanation, and gives the one that is being found out until ctx ends.
func (e *explainer) drain(ctx context.Context, r *incidents.Reporter) {
	e.mu.Lock()
	waiting, done := e.waiting, e.done
	e.waiting = nil
	e.mu.Unlock()
	for _, d := range waiting {
		r.Add(denialIncident(d, policy.Explanation{}))
	}
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// denialIncident is a denial as the owner reads it.
func denialIncident(d policy.Denial, x policy.Explanation) evidence.Incident {
	said, remedy := d.Remedy()
	i := evidence.Incident{Stage: stagePolicy, Request: d.Request, Subject: d.Subject(), Error: d.Reason.Code + ": " + said, Remedy: remedy, Prints: x.Prints}
	for _, c := range x.Causes {
		i.Conditions = append(i.Conditions, evidence.IncidentCondition{Rules: c.Rules, Line: c.Line, Condition: c.Text, Field: c.Field, Given: c.Given, Wanted: c.Wanted})
	}
	return i
}
