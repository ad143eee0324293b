// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// reportTime is what a report may cost a handshake that was refused.
const reportTime = 3 * time.Second

// report sends what the guest says of itself after a handshake, best effort: nobody can
// look into a guest to ask. It goes to the broker that the evidence went to, under the
// handshake's cookie, also when the broker refused the evidence; another broker than
// keybroker answers that it knows no such path, which nobody needs to hear. After a
// success it does not hold the caller up.
func (c *Client) report(ctx context.Context, t Transcript, jar *jar, err error) {
	if c.cfg.Report == nil || jar.empty() || t.Sent == nil {
		return
	}
	if _, refused := errors.AsType[*StatusError](err); err != nil && !refused {
		return
	}
	send := func() {
		body := c.cfg.Report(t)
		if len(body) == 0 || len(body) > evidence.MaxGuestReport {
			return
		}
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
		defer cancel()
		if _, err := c.roundTrip(limited, jar, http.MethodPost, "report", request{body: body, limit: evidence.MaxErrorSize}); err != nil {
			c.cfg.Log.Debug("the broker took no report", "error", err)
		}
	}
	if err == nil {
		go send()
		return
	}
	send()
}
