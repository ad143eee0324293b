// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// retrier spaces attempts. Only transport errors and the answers that ask for
// patience are tried again: a refusal or a wrong byte is final.
type retrier struct {
	attempts int           // without progress, the first included
	first    time.Duration // wait before the second attempt; doubles each time
	longest  time.Duration // cap of one wait, also of a Retry-After

	retries *atomic.Int64 // counts the attempts behind the first, nil for nobody
}

// defaultRetrier waits about 0.2, 0.4 and 0.8 s: it rides out a restart of a
// proxy, not an outage.
func defaultRetrier() retrier {
	return retrier{attempts: 4, first: 200 * time.Millisecond, longest: 30 * time.Second}
}

// retryable wraps an error after which the same request may succeed.
type retryable struct {
	error
	after time.Duration // the server's Retry-After, 0 when it gave none
}

func (r *retryable) Unwrap() error { return r.error }

// do calls f until it succeeds, fails for good or has failed attempts times.
func (r retrier) do(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil {
			return nil
		}
		if err := r.wait(ctx, n, err); err != nil {
			return err
		}
	}
}

// wait returns nil after the pause that follows the nth failure in a row, or the
// error to end with.
func (r retrier) wait(ctx context.Context, n int, err error) error {
	again, ok := errors.AsType[*retryable](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	if n >= r.attempts {
		return fmt.Errorf("%w (tried %d times)", again.error, n)
	}
	if again.after > r.longest {
		return fmt.Errorf("%w: it asks to wait %s, more than %s", again.error, again.after, r.longest)
	}
	pause := min(r.first<<(n-1), r.longest)
	pause = max(pause/2+rand.N(pause/2+1), again.after) //nolint:gosec // jitter, not a secret
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		if r.retries != nil {
			r.retries.Add(1)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// classify turns an error of an HTTP round trip into one of this package: final
// when the configuration or the peer's identity is at fault, else retryable.
func classify(ctx context.Context, err error) error {
	err = withoutURL(err)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, ErrStalled):
		return &retryable{error: err}
	case ctx.Err() != nil, is[Fault](err):
		return err
	case timedOut(err):
		return &retryable{error: fmt.Errorf("%w: %w", ErrStalled, err)}
	case is[*tls.CertificateVerificationError](err), is[x509.UnknownAuthorityError](err),
		is[x509.HostnameError](err), is[x509.CertificateInvalidError](err),
		errors.Is(err, http.ErrSchemeMismatch), refusedByTLS(err):
		return fmt.Errorf("%w: %w", ErrTransport, err)
	}
	return &retryable{error: fmt.Errorf("%w: %w", ErrTransport, err)}
}

// refusedByTLS reports whether the peer has said in an alert that it will not speak
// to us. An internal error of its own is none of that.
func refusedByTLS(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && op.Err.Error() != "tls: internal error"
}

// timedOut reports whether a peer that was reached did not answer in time.
func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	op, isOp := errors.AsType[*net.OpError](err)
	return ok && e.Timeout() && (!isOp || op.Op != "dial")
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
