// SPDX-License-Identifier: Apache-2.0

package incidents

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// MaxKept bounds the incidents that wait, each of at most evidence.MaxIncident bytes: 1 MiB.
const MaxKept = 64

// Sender tells the relying party. Its errors are those of kbs.Client.Tell.
type Sender interface {
	Tell(ctx context.Context, incidents []byte) error
}

// Reporter keeps and sends. A nil *Reporter does nothing. It is safe for concurrent use.
type Reporter struct {
	log   *slog.Logger
	clock func() time.Duration // since the machine started
	pace  pace
	wake  chan struct{} // of one place: there is something to do

	sending chan struct{} // of one place, taken while a message is on its way

	mu       sync.Mutex // guards the fields below
	kept     []kept     // the oldest first
	seq      uint64
	dropped  uint64
	sender   Sender // nil until a session was earned
	next     Sender // takes its place when it has no session any more
	greeted  bool   // sender was told something, if only that nothing has happened
	deaf     bool   // the relying party takes none
	attempts int    // of the message that is to be sent
}

// kept is an incident and when it happened.
type kept struct {
	evidence.Incident
	at time.Duration
}

// New makes a Reporter that sends nothing before Run and Use. clock is the time since the machine started.
func New(log *slog.Logger, clock func() time.Duration) *Reporter {
	return &Reporter{log: log, clock: clock, pace: newPace(), wake: make(chan struct{}, 1), sending: make(chan struct{}, 1)}
}

// Add keeps an incident, cut to its size, and waits for nothing. Seq, Ago and Repeated are the Reporter's. One equal to
// another that waits is counted there, though what that one knows beyond stage, request, subject, error and remedy may
// differ.
func (r *Reporter) Add(i evidence.Incident) {
	if r == nil {
		return
	}
	i = i.Fit()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deaf {
		return
	}
	for n := range r.kept {
		if k := &r.kept[n]; same(k.Incident, i) {
			k.Repeated++
			if len(k.Conditions) == 0 && len(k.Prints) == 0 {
				k.Conditions, k.Prints = i.Conditions, i.Prints
			}
			return
		}
	}
	r.seq++
	i.Seq = r.seq
	if len(r.kept) >= MaxKept {
		r.kept = slices.Delete(r.kept, 0, 1)
		r.dropped++
	}
	r.kept = append(r.kept, kept{i, r.clock()})
	r.poke()
}

func same(a, b evidence.Incident) bool {
	return a.Stage == b.Stage && a.Request == b.Request && a.Subject == b.Subject && a.Error == b.Error && a.Remedy == b.Remedy
}

// Use says that s has a session, or is about to. The first stays in use for as long as it has one, so that what a guest
// tells goes under one reference.
func (r *Reporter) Use(s Sender) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.sender == nil:
		r.sender, r.greeted = s, false
	case r.sender != s:
		r.next = s
	}
	r.poke()
}

// poke wakes Run. The caller holds mu.
func (r *Reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take removes the next message from the ring. ok is false when there is nothing to send, or nobody to send it to.
func (r *Reporter) take() (batch []kept, dropped uint64, s Sender, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deaf || r.sender == nil || len(r.kept) == 0 && r.greeted {
		return nil, 0, nil, false
	}
	n := min(len(r.kept), evidence.MaxIncidents)
	batch = slices.Clone(r.kept[:n])
	r.kept = slices.Delete(r.kept, 0, n)
	return batch, r.dropped, r.sender, true
}

// giveBack returns a message that was not sent to the head of the ring. The oldest that find no place are dropped.
// The caller holds mu.
func (r *Reporter) giveBack(batch []kept) {
	room := MaxKept - len(r.kept)
	if lost := len(batch) - room; lost > 0 {
		r.dropped += uint64(lost)
		batch = batch[lost:]
	}
	r.kept = slices.Insert(r.kept, 0, batch...)
}
