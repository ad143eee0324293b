// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/storage"
)

// counters are those that the relying party keeps of volumes.
type counters struct{ client *kbs.Client }

// Last implements storage.Counter.
func (c counters) Last(ctx context.Context, volume string) (storage.Generation, bool, error) {
	now, err := c.client.Counter(ctx, volume)
	if errors.Is(err, kbs.ErrNotFound) {
		return storage.Generation{}, false, nil
	}
	return storage.Generation(now.Generation), now.Reset, err
}

// Raise implements storage.Counter.
func (c counters) Raise(ctx context.Context, volume string, from, to storage.Generation) error {
	now, err := c.client.RaiseCounter(ctx, volume, evidence.CounterChange{From: evidence.Generation(from), To: evidence.Generation(to)})
	if err == nil && storage.Generation(now.Generation) != to {
		err = storage.ErrNotLast
	}
	return err
}
