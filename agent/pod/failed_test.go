// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestFailedHearsAll: whoever is told of failures hears the whole of each, once, and the host its phrase; what the
// policy refused, which ends in the decoding, and what succeeds is not told.
func TestFailedHearsAll(t *testing.T) {
	var heard []string
	s := &Service{cfg: Config{Log: slog.New(slog.DiscardHandler), Failed: func(request, container string, err error) {
		heard = append(heard, request+" "+container+": "+err.Error())
	}}}
	call := func(decoded, result error) error {
		serve := handler(s, func(context.Context, *kata.CreateContainerRequest) (*emptypb.Empty, error) {
			return &emptypb.Empty{}, result
		})
		_, err := serve(t.Context(), func(v any) error {
			v.(*kata.CreateContainerRequest).ContainerId = "app"
			return decoded
		})
		return err
	}
	for _, err := range []error{call(nil, nil), call(errors.New("denied"), errors.New("not reached"))} {
		if len(heard) != 0 {
			t.Errorf("%v was told: %q", err, heard)
		}
	}
	err := call(nil, fmt.Errorf("making it: %w", &Failure{Code: codes.NotFound, Phrase: "phrase", Err: errors.New("cause")}))
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "phrase" {
		t.Errorf("the host reads %v", s)
	}
	if len(heard) != 1 || heard[0] != "CreateContainerRequest app: making it: phrase: cause" {
		t.Errorf("heard %q", heard)
	}
	s.cfg.Failed = nil
	if err := call(nil, errors.New("x")); err == nil {
		t.Error("no error")
	}
	none := handler(s, func(context.Context, *kata.DestroySandboxRequest) (*emptypb.Empty, error) {
		return nil, errors.New("y")
	})
	s.cfg.Failed = func(request, container string, _ error) { heard = append(heard, request+"|"+container) }
	if _, err := none(t.Context(), func(any) error { return nil }); err == nil || heard[1] != "DestroySandboxRequest|" {
		t.Errorf("%v, heard %q", err, heard)
	}
}
