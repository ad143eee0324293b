// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/frames"
)

// maxConnections bounds the callers of one socket; each costs some KiB while it is idle.
const maxConnections = 1024

// stopTimeout is how long calls in flight may take once the server ends.
const stopTimeout = 2 * time.Second

// failure is an error whose phrase clients may read; the reason is for the log.
type failure struct {
	phrase string
	reason error
}

func (f *failure) Error() string { return f.phrase + ": " + f.reason.Error() }
func (f *failure) Unwrap() error { return f.reason }

// worded gives err a phrase unless it has one.
func worded(phrase string, err error) error {
	if _, ok := errors.AsType[*failure](err); ok {
		return err
	}
	return &failure{phrase, err}
}

// internalError stands for every error that has no phrase of its own.
const internalError = "internal error"

// phrase is what a client may read of err.
func phrase(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.phrase
	}
	return internalError
}

// serveTTRPC answers calls on l until ctx is done and closes l. prefix stands before
// every phrase that clients read, as upstream's daemons write it.
func serveTTRPC(ctx context.Context, l net.Listener, prefix string, log *slog.Logger, methods map[string]map[string]ttrpc.Method) error {
	server := frames.NewServer(frames.Config{Methods: methods, Intercept: guard(prefix, log), Connections: maxConnections})
	stopped := make(chan struct{})
	stop := func() {
		defer close(stopped)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		server.Stop(limit, 0)
	}
	wait := context.AfterFunc(ctx, stop)
	err := server.Serve(context.WithoutCancel(ctx), l)
	if wait() {
		stop()
	}
	<-stopped
	if err != nil {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}

// guard bounds a call in time, keeps a panic from ending the process, and turns errors
// into what clients may read. Errors that are a status already were made for them.
func guard(prefix string, log *slog.Logger) ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
		limit := callTimeout
		if info.FullMethod == pullMethod {
			limit = pullTimeout
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		defer func() {
			if r := recover(); r != nil {
				// The value is left out: it may quote what was being handled.
				log.ErrorContext(ctx, "call panicked", "method", info.FullMethod, "type", fmt.Sprintf("%T", r))
				resp, err = nil, status.Error(codes.Internal, prefix+internalError)
			}
		}()
		resp, err = method(ctx, unmarshal)
		if err == nil {
			return resp, nil
		}
		log.WarnContext(ctx, "call failed", "method", info.FullMethod, "error", err)
		// A failure goes first: a status somewhere inside it was not made for clients.
		if _, ok := errors.AsType[*failure](err); !ok {
			if _, ok := status.FromError(err); ok {
				return nil, err
			}
		}
		return nil, status.Error(codes.Internal, prefix+phrase(err))
	}
}
