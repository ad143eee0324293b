// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

type policyFunc func(ctx context.Context, request string, msg proto.Message) error

func (f policyFunc) Allow(ctx context.Context, request string, msg proto.Message) error {
	return f(ctx, request, msg)
}

func allowAll(context.Context, string, proto.Message) error { return nil }

const (
	canary     = "canary-7f3a"
	testMethod = "grpc.AgentService/SignalProcess"
)

// runGate sends one SignalProcess request through a gate whose table serves it, and tells whether handler ran.
func runGate(t *testing.T, door *Door, decode ttrpc.Unmarshaler, handler func() (any, error)) (ran bool, resp any, err error, logged string) {
	t.Helper()
	var buf bytes.Buffer
	g := &gate{
		methods: map[string]method{testMethod: {request: "SignalProcessRequest", served: true, access: asked}},
		door:    door,
		log:     slog.New(slog.NewTextHandler(&buf, nil)),
	}
	handle := func(_ context.Context, decode func(any) error) (any, error) {
		var req kata.SignalProcessRequest
		if err := decode(&req); err != nil {
			return nil, err
		}
		ran = true
		return handler()
	}
	resp, err = g.intercept(t.Context(), decode, &ttrpc.UnaryServerInfo{FullMethod: "/" + testMethod}, handle)
	return ran, resp, err, buf.String()
}

func decodeSignal(v any) error {
	v.(*kata.SignalProcessRequest).ContainerId = "c1"
	return nil
}

func answer() (any, error) { return &kata.WaitProcessResponse{}, nil }

func TestGate(t *testing.T) {
	openDoor := func(p policyFunc) *Door {
		d := new(Door)
		if !d.Open(p) {
			t.Fatal("a closed door did not open")
		}
		return d
	}
	parked := openDoor(allowAll)
	parked.Park(Reason{"boot-modules", "the guest could not load its modules"})
	parked.Park(Reason{"second", "a later reason"})

	tests := []struct {
		name    string
		door    *Door
		decode  ttrpc.Unmarshaler
		handler func() (any, error)
		ran     bool
		code    codes.Code
		message string
	}{
		{name: "closed door", door: new(Door), code: codes.PermissionDenied,
			message: "SignalProcessRequest is blocked by policy: door-closed: initdata and policy have not been accepted yet"},
		{name: "parked door keeps the first reason", door: parked, code: codes.PermissionDenied,
			message: "SignalProcessRequest is blocked by policy: boot-modules: the guest could not load its modules"},
		{name: "allowed", door: openDoor(allowAll), ran: true, code: codes.OK},
		{name: "denied", door: openDoor(func(_ context.Context, request string, msg proto.Message) error {
			if request != "SignalProcessRequest" || msg.(*kata.SignalProcessRequest).ContainerId != "c1" {
				return errors.New("the policy was not given the decoded request")
			}
			return fmt.Errorf("rule %s: %w", canary, &Denial{Reason{"signal", "signal is not in the list"}})
		}), code: codes.PermissionDenied, message: "SignalProcessRequest is blocked by policy: signal: signal is not in the list"},
		{name: "policy engine breaks", door: openDoor(func(context.Context, string, proto.Message) error {
			return errors.New("evaluating " + canary)
		}), code: codes.Internal, message: "SignalProcessRequest could not be judged"},
		{name: "policy engine panics", door: openDoor(func(context.Context, string, proto.Message) error {
			panic(canary)
		}), code: codes.Internal, message: "internal error"},
		{name: "malformed request", door: openDoor(allowAll), decode: func(any) error { return errors.New(canary) },
			code: codes.InvalidArgument, message: "SignalProcessRequest is malformed"},
		{name: "handler panics", door: openDoor(allowAll), ran: true, handler: func() (any, error) { panic(canary) },
			code: codes.Internal, message: "internal error"},
		{name: "handler's own status passes", door: openDoor(allowAll), ran: true, handler: func() (any, error) {
			return nil, status.Error(codes.NotFound, "Process not found")
		}, code: codes.NotFound, message: "Process not found"},
		{name: "handler's plain error is hidden", door: openDoor(allowAll), ran: true, handler: func() (any, error) {
			return nil, errors.New("opening /run/x")
		}, code: codes.Internal, message: "internal error"},
		{name: "handler runs out of time", door: openDoor(allowAll), ran: true, handler: func() (any, error) {
			return nil, fmt.Errorf("pulling %s: %w", canary, context.DeadlineExceeded)
		}, code: codes.DeadlineExceeded, message: "deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.decode == nil {
				tt.decode = decodeSignal
			}
			if tt.handler == nil {
				tt.handler = answer
			}
			ran, resp, err, logged := runGate(t, tt.door, tt.decode, tt.handler)
			s := status.Convert(err)
			if ran != tt.ran || s.Code() != tt.code || s.Message() != tt.message {
				t.Errorf("ran %v, %v %q; want %v, %v %q", ran, s.Code(), s.Message(), tt.ran, tt.code, tt.message)
			}
			if (resp != nil) != (tt.code == codes.OK) {
				t.Errorf("response %v with %v", resp, s.Code())
			}
			if strings.Contains(logged+s.Message(), canary) {
				t.Errorf("the canary reached the log or the host: %s", logged)
			}
		})
	}
}

// counting allows everything and counts how its decisions end.
type counting struct {
	policyFunc
	decided, begun, undone int
}

func (c *counting) Decide(context.Context, string, proto.Message) (Decision, error) {
	c.decided++
	return c, nil
}
func (c *counting) Begun() { c.begun++ }
func (c *counting) Undo()  { c.undone++ }

// TestGateSettlesDecisions: a decision stands when the handler succeeds and is undone whichever way it fails.
func TestGateSettlesDecisions(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler func() (any, error)
		undone  int
	}{
		{"success", answer, 0},
		{"status", func() (any, error) { return nil, status.Error(codes.NotFound, "x") }, 1},
		{"plain error", func() (any, error) { return nil, errors.New("x") }, 1},
		{"panic", func() (any, error) { panic("x") }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &counting{policyFunc: func(context.Context, string, proto.Message) error { return errors.New("Allow was asked") }}
			door := new(Door)
			door.Open(c)
			if ran, _, _, _ := runGate(t, door, decodeSignal, tt.handler); !ran {
				t.Fatal("the handler did not run")
			}
			if c.decided != 1 || c.undone != tt.undone || c.begun != 1-tt.undone {
				t.Errorf("decided %d, begun %d, undone %d", c.decided, c.begun, c.undone)
			}
		})
	}
	c := new(counting)
	ctx := context.WithValue(t.Context(), holdingKey{}, &holding{decision: c})
	Begun(ctx)
	Begun(t.Context()) // a request without a decision
	if c.begun != 1 {
		t.Errorf("begun %d times", c.begun)
	}
}

// TestPanicSite makes sure that the log line of a panic is of use.
func TestPanicSite(t *testing.T) {
	door := new(Door)
	door.Open(policyFunc(allowAll))
	_, _, _, logged := runGate(t, door, decodeSignal, func() (any, error) {
		var m map[string]int
		m["x"] = 1
		return nil, nil
	})
	if !strings.Contains(logged, "TestPanicSite") || !strings.Contains(logged, "gate_test.go:") {
		t.Errorf("log names no site: %s", logged)
	}
}

func TestUnknownMethodReachesNoHandler(t *testing.T) {
	g := &gate{methods: methods(), door: new(Door), log: slog.New(slog.DiscardHandler)}
	_, err := g.intercept(t.Context(), decodeSignal, &ttrpc.UnaryServerInfo{FullMethod: "/grpc.AgentService/Debug"},
		func(context.Context, func(any) error) (any, error) {
			t.Error("handler ran")
			return nil, nil
		})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

func TestDoor(t *testing.T) {
	d := new(Door)
	if d.Open(nil) {
		t.Error("a door opened for no policy")
	}
	if !d.Open(policyFunc(allowAll)) || d.Open(policyFunc(allowAll)) {
		t.Error("a door opens once")
	}
	d.Park(Reason{"a", "b"})
	if d.Open(policyFunc(allowAll)) {
		t.Error("a parked door opened")
	}
	closed := new(Door)
	closed.Park(Reason{"a", "b"})
	if p, r := closed.policy(); p != nil || r.Code != "a" {
		t.Errorf("parked from closed: %v %v", p, r)
	}
}
