// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

// Reason tells the host why a request is refused. Code is stable and made for programs, Phrase is for people.
// The host reads both, so neither is ever computed from anything but what the host itself sent.
type Reason struct {
	Code   string
	Phrase string
}

// String is the form that goes on the wire.
func (r Reason) String() string { return r.Code + ": " + r.Phrase }

// Denial is the error by which a [Policy] says no.
type Denial struct {
	Reason Reason
}

func (d *Denial) Error() string { return "denied by policy: " + d.Reason.String() }

// Policy decides about one request after it was decoded and before its handler sees it. request is the name of
// the request message, such as "CreateContainerRequest", which is also the policy's entry point.
//
// A *[Denial] is a decision whose reason the host may read; any other error means that no decision could be made,
// which refuses the request without details.
type Policy interface {
	Allow(ctx context.Context, request string, msg proto.Message) error
}

// Decider is a [Policy] with a state that requests change. The gate prefers Decide to Allow. One of the decision's
// methods is called in any case, so that judging, changing the state and the start of handling are one step to
// every other request.
type Decider interface {
	Policy
	Decide(ctx context.Context, request string, msg proto.Message) (Decision, error)
}

// Decision is a request that was allowed and may hold others back.
type Decision interface {
	// Begun ends the holding: what the decision allowed is now visible to whoever handles the next request. May be
	// called more than once.
	Begun()
	// Undo takes back what the decision changed, since the request failed. May follow Begun.
	Undo()
}

// Door stands before every method that is not always open. Its zero value is closed. It goes from closed to open
// once, and from either to parked, where it stays. Safe for concurrent use, and nothing waits in it.
type Door struct {
	state atomic.Pointer[doorState]
}

type doorState struct {
	policy Policy // nil: refuse with reason
	reason Reason
}

// closedReason is what the host reads before a policy has been accepted.
func closedReason() Reason {
	return Reason{"door-closed", "initdata and policy have not been accepted yet"}
}

// Open lets requests through to the policy. A door that is open or parked stays as it is, and so does any door
// for a nil policy; Open then reports false.
func (d *Door) Open(p Policy) bool {
	return p != nil && d.state.CompareAndSwap(nil, &doorState{policy: p})
}

// Park closes the door for good. The first reason is kept: it names what went wrong first.
func (d *Door) Park(r Reason) {
	for {
		old := d.state.Load()
		if old != nil && old.policy == nil {
			return
		}
		if d.state.CompareAndSwap(old, &doorState{reason: r}) {
			return
		}
	}
}

// policy returns the policy behind an open door, or nil and the reason why it is closed.
func (d *Door) policy() (Policy, Reason) {
	s := d.state.Load()
	if s == nil {
		return nil, closedReason()
	}
	return s.policy, s.reason
}
