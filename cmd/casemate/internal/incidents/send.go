// SPDX-License-Identifier: Apache-2.0

package incidents

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
)

const (
	// gather is how long the first incident waits for others: causes come in groups.
	gather = 300 * time.Millisecond
	// paceBurst messages go out as they come; then one each paceEvery, which is at most 4 KiB a second.
	paceBurst = 16
	paceEvery = 30 * time.Second
	// maxTries is how often one message is sent, sendTime what each may take; retryPause lies before the second and
	// doubles before each further: five minutes in all.
	maxTries   = 6
	sendTime   = 5 * time.Second
	retryPause = 10 * time.Second
)

// outcome is what became of a message.
type outcome int

const (
	idle   outcome = iota // there was none to send, or nobody to send it to
	told                  // it was sent
	failed                // it was not, and may be sent again
)

// pace is an allowance of messages.
type pace struct {
	left  int
	every time.Duration
	since time.Time // when left was last added to
}

func newPace() pace { return pace{left: paceBurst, every: paceEvery, since: time.Now()} }

// wait is how long until the next message may go.
func (p *pace) wait(now time.Time) time.Duration {
	if n := int(now.Sub(p.since) / p.every); n > 0 {
		p.left, p.since = min(paceBurst, p.left+n), p.since.Add(time.Duration(n)*p.every)
	}
	if p.left > 0 {
		return 0
	}
	return p.every - now.Sub(p.since)
}

// Run sends until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	if r == nil {
		return
	}
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for pause := gather; pause > 0; {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			if pause = r.pace.wait(time.Now()); pause > 0 {
				continue
			}
			switch r.send(ctx) {
			case told:
				r.pace.left--
				pause = gather
			case failed:
				r.pace.left--
				pause = r.retryPause()
			case idle:
			}
		}
	}
}

// retryPause is how long to wait behind a failure.
func (r *Reporter) retryPause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempts == 0 { // another message, or another sender
		return gather
	}
	return retryPause << (r.attempts - 1)
}

// Flush sends what waits, without a pause, until ctx ends: for a guest that is about to. It does not try twice.
func (r *Reporter) Flush(ctx context.Context) {
	if r == nil {
		return
	}
	for range MaxKept/evidence.MaxIncidents + 1 {
		r.mu.Lock()
		empty := len(r.kept) == 0
		r.mu.Unlock()
		if empty || r.send(ctx) != told {
			return
		}
	}
}

// send sends one message.
func (r *Reporter) send(ctx context.Context) outcome {
	select {
	case r.sending <- struct{}{}:
	case <-ctx.Done():
		return failed
	}
	defer func() { <-r.sending }()
	batch, dropped, s, ok := r.take()
	if !ok {
		return idle
	}
	m := evidence.Incidents{Dropped: dropped}
	now := r.clock()
	for _, k := range batch {
		k.Ago = max(0, (now - k.at).Microseconds())
		m.List = append(m.List, k.Incident)
	}
	raw, err := m.Encode()
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, sendTime)
		defer cancel()
		err = s.Tell(limited, raw)
	}
	return r.concluded(batch, err)
}

// concluded draws the conclusion from an answer.
func (r *Reporter) concluded(batch []kept, err error) outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.greeted, r.attempts = true, 0
		return told
	case errors.Is(err, kbs.ErrNotServed):
		r.log.Debug("the relying party takes no incidents", "error", err)
		r.deaf, r.kept = true, nil
		return idle
	case errors.Is(err, kbs.ErrNoSession):
		// The next session takes it up, whenever that is.
		r.giveBack(batch)
		r.sender, r.next, r.greeted, r.attempts = r.next, nil, false, 0
		if r.sender == nil {
			return idle
		}
		return failed
	}
	r.log.Debug("the relying party was not told of incidents", "error", err)
	if r.attempts++; r.attempts < maxTries {
		r.giveBack(batch)
		return failed
	}
	r.attempts = 0
	r.dropped += uint64(len(batch))
	r.greeted = true // whoever was greeted in vain is told of the next incident
	return failed
}
