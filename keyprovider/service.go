// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
)

// callTimeout ends a call whose key source hangs. Guest components' clients
// give up after the same time; ocicrypt's Go client never does.
const callTimeout = 50 * time.Second

// UnwrapService serves UnWrapKey, as a guest does. WrapKey is unimplemented.
type UnwrapService struct {
	pb.UnimplementedKeyProviderServiceServer

	// Unwrapper must not be nil.
	Unwrapper *Unwrapper
	// Log gets the reasons that clients are not told. Must not be nil.
	Log *slog.Logger
}

// UnWrapKey opens the annotation packet of one layer. Clients learn what is
// wrong with their own input and which key was refused; why it was refused
// goes to the log.
func (s *UnwrapService) UnWrapKey(ctx context.Context, in *pb.KeyProviderKeyWrapProtocolInput) (*pb.KeyProviderKeyWrapProtocolOutput, error) {
	defer clear(in.KeyProviderKeyWrapProtocolInput)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	packet, err := parseUnwrapInput(in.KeyProviderKeyWrapProtocolInput)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	plbco, err := s.Unwrapper.Unwrap(ctx, packet)
	if err != nil {
		s.Log.WarnContext(ctx, "unwrapping a layer key", "error", err)
		return nil, unwrapStatus(err)
	}
	defer clear(plbco)
	return &pb.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: encodeUnwrapOutput(plbco)}, nil
}

func unwrapStatus(err error) error {
	switch {
	case errors.Is(err, ErrPacket):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrProvider), errors.Is(err, ErrUnauthenticated):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, ErrUnwrap):
		return status.Error(codes.PermissionDenied, err.Error())
	default:
		return status.Error(codes.Unavailable, "the key of this layer was not released")
	}
}

// WrapService serves WrapKey with one key, as an owner's tool does. UnWrapKey
// is unimplemented.
type WrapService struct {
	pb.UnimplementedKeyProviderServiceServer

	// KeyID is written into every packet: "kbs:///REPOSITORY/TYPE/TAG". A call
	// that names another one is refused.
	KeyID string
	// Keys yields the KEK of KeyID. Must not be nil.
	Keys KeySource
}

// WrapKey wraps the options of one layer.
func (s *WrapService) WrapKey(ctx context.Context, in *pb.KeyProviderKeyWrapProtocolInput) (*pb.KeyProviderKeyWrapProtocolOutput, error) {
	defer clear(in.KeyProviderKeyWrapProtocolInput)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	params, plbco, err := parseWrapInput(in.KeyProviderKeyWrapProtocolInput)
	defer clear(plbco)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if params.keyID != "" && params.keyID != s.KeyID {
		return nil, status.Errorf(codes.InvalidArgument, "this key provider wraps with %s, not with %s", s.KeyID, params.keyID)
	}
	kek, err := s.Keys.Key(ctx, s.KeyID)
	defer clear(kek)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "%s %s: %s", ErrKey, s.KeyID, err)
	}
	packet, err := Wrap(kek, s.KeyID, plbco)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &pb.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: encodeWrapOutput(packet)}, nil
}
