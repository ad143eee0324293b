// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"sync"
)

// stateless is a decision that changed nothing: there is nothing to hold or to take back.
type stateless struct{}

func (stateless) Begun() {}
func (stateless) Undo()  {}

// change is a decision that changed the state and has the turn until it is told that handling has begun.
type change struct {
	policy        *Policy
	before, after map[string]any

	mu     sync.Mutex
	begun  bool // the turn was given back
	undone bool
}

// Begun lets others be decided about. Later calls do nothing.
func (c *change) Begun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		c.begun = true
		c.policy.give()
	}
}

// Undo takes the change of state back, also after Begun, except where a later decision changed the same key again.
func (c *change) Undo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.undone {
		return
	}
	c.undone = true
	// The request may be over: its context must not stop the undoing.
	ctx := context.Background()
	if c.begun {
		_ = c.policy.take(ctx) // fails only with its context
	}
	c.begun = true
	defer c.policy.give()
	// A write into memory of a value that was there before cannot be refused.
	_ = c.policy.write(ctx, revert(c.policy.state, c.before, c.after))
}
