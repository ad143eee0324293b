// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// gate is the one place that every request passes on its way to a handler.
type gate struct {
	methods map[string]method
	door    *Door
	log     *slog.Logger
}

// intercept runs for every unary request, and there are no others. The policy is asked inside the handler's own
// decoding step, so that it judges exactly the value that the handler is given and the handler's body has not run.
func (g *gate) intercept(ctx context.Context, decode ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, handle ttrpc.Method) (resp any, err error) {
	name := strings.TrimPrefix(info.FullMethod, "/")
	held := new(holding)
	defer func() { held.end(err) }() // runs after the recovery below, and sees its error
	defer func() {
		if p := recover(); p != nil {
			// The value may hold anything, and the log ends on a console that the host reads.
			g.log.ErrorContext(ctx, "handler panicked", "method", name, "at", panicSite())
			resp, err = nil, status.Error(codes.Internal, "internal error")
		}
	}()
	m, ok := g.methods[name]
	if !ok {
		return nil, status.Error(codes.Unimplemented, "no such method")
	}
	if m.served && m.access == always {
		return g.hide(name)(handle(ctx, g.decoder(m, decode)))
	}
	policy, reason := g.door.policy()
	if policy == nil {
		return nil, refusal(m.request, reason)
	}
	if !m.served {
		return nil, refusal(m.request, m.reason)
	}
	plain := g.decoder(m, decode)
	return g.hide(name)(handle(context.WithValue(ctx, holdingKey{}, held), func(v any) error {
		if err := plain(v); err != nil {
			return err
		}
		msg, ok := v.(proto.Message)
		if !ok {
			return status.Error(codes.Internal, "internal error")
		}
		return g.ask(ctx, policy, m.request, msg, held)
	}))
}

// decoder replaces the library's decoding error, which quotes the codec, by a fixed one.
func (g *gate) decoder(m method, decode ttrpc.Unmarshaler) ttrpc.Unmarshaler {
	return func(v any) error {
		if err := decode(v); err != nil {
			return status.Errorf(codes.InvalidArgument, "%s is malformed", m.request)
		}
		return nil
	}
}

func (g *gate) ask(ctx context.Context, policy Policy, request string, msg proto.Message, held *holding) error {
	err := held.ask(ctx, policy, request, msg)
	if err == nil {
		return nil
	}
	var denial *Denial
	if errors.As(err, &denial) {
		return refusal(request, denial.Reason)
	}
	// What a policy engine prints may quote the request or the policy: it is for explain, not for the console.
	g.log.ErrorContext(ctx, "policy gave no decision", "request", request)
	return status.Errorf(codes.Internal, "%s could not be judged", request)
}

// hide keeps the text of unexpected errors from the host: a status that a handler chose passes, also a cancelled
// or overdue request, everything else is logged and becomes a bare INTERNAL.
func (g *gate) hide(name string) func(any, error) (any, error) {
	return func(resp any, err error) (any, error) {
		if err == nil {
			return resp, nil
		}
		if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			return nil, s.GRPCStatus().Err()
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil, status.Error(codes.DeadlineExceeded, "deadline exceeded")
		case errors.Is(err, context.Canceled):
			return nil, status.Error(codes.Canceled, "cancelled")
		}
		g.log.Error("request failed", "method", name, "error", err)
		return nil, status.Error(codes.Internal, "internal error")
	}
}

// refusal has the form that the runtimes' own tests look for.
func refusal(request string, reason Reason) error {
	return status.Errorf(codes.PermissionDenied, "%s is blocked by policy: %s", request, reason)
}

// panicSite returns "function (file:line)" of the frame that panicked.
func panicSite() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		// Below the deferred function come the runtime's own frames, then the culprit.
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") && !strings.Contains(f.Function, ".intercept.func") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
		}
	}
	return "unknown"
}
