// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
)

// counterPath is keybroker's plugin for the counters of volumes; other brokers have none. An answer is encrypted as a
// resource is, which does not authenticate it: that is TLS's part, so a plain HTTP broker is not asked.
const counterPath = "counter/"

// Counter returns what keybroker keeps of a volume of this guest's workload. The error wraps ErrNotFound if it keeps
// nothing.
func (c *Client) Counter(ctx context.Context, volume string) (evidence.Counter, error) {
	return c.counter(ctx, volume, http.MethodGet, nil)
}

// RaiseCounter asks for a change and returns what keybroker keeps afterwards: change.To if the counter was change.From,
// or was change.To already, as it is when an earlier answer got lost.
func (c *Client) RaiseCounter(ctx context.Context, volume string, change evidence.CounterChange) (evidence.Counter, error) {
	return c.counter(ctx, volume, http.MethodPost, change.Encode())
}

func (c *Client) counter(ctx context.Context, volume, method string, body []byte) (evidence.Counter, error) {
	if c.base.Scheme != "https" {
		return evidence.Counter{}, fmt.Errorf("asking for the counter of volume %s: %w", volume, errors.New("nothing authenticates the answers of a KBS over plain HTTP"))
	}
	var answer evidence.Counter
	raw, err := c.fetch(ctx, method, counterPath+volume, body)
	if err == nil {
		if answer, err = evidence.ParseCounter(raw); err != nil {
			err = violation(err)
		}
	}
	if err != nil {
		return evidence.Counter{}, fmt.Errorf("asking for the counter of volume %s: %w", volume, err)
	}
	return answer, nil
}
