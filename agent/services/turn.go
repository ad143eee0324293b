// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"sync"
)

// turn lets one caller at a time pass, in the order in which they came. Its zero value is ready.
//
// A TEE and the event log's lock serve one at a time in any case, and whoever waits inside a system call holds a
// thread of the process, of which there are not many thousands. Who waits here holds nothing and can leave.
type turn struct {
	once sync.Once
	busy chan struct{}
}

// inTurn runs f once it is the caller's turn, or fails when ctx ends before that.
func inTurn[T any](ctx context.Context, t *turn, f func() (T, error)) (T, error) {
	t.once.Do(func() { t.busy = make(chan struct{}, 1) })
	select {
	case t.busy <- struct{}{}:
		defer func() { <-t.busy }()
		return f()
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("waiting for other callers: %w", context.Cause(ctx))
	}
}
