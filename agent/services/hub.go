// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/containerd/ttrpc"

	pb "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/agent/frames"
	"github.com/casemate/casemate/keyprovider/keyproviderpb"
)

// Hub is the data hub: sealed secrets, resources, images and layer keys.
type Hub struct {
	// Resources, Sealed and LayerKeys must not be nil. LayerKeys serves UnWrapKey and
	// leaves WrapKey unimplemented.
	Resources Resources
	Sealed    Unsealer
	LayerKeys keyproviderpb.TTRPCKeyProviderServiceService
	// Images may be nil: then PullImage is refused.
	Images Images
	// Mounts may be nil: then SecureMount is refused.
	Mounts Mounts
	// Log gets the reasons that clients are not told. Must not be nil.
	Log *slog.Logger
}

// Serve answers on l, which it closes, until ctx is done. l decides who may connect:
// a caller reads any resource that the relying party releases to this guest.
func (h *Hub) Serve(ctx context.Context, l net.Listener) error {
	return serveTTRPC(ctx, l, "[CDH] [ERROR]: ", h.Log, map[string]map[string]ttrpc.Method{
		"api.SealedSecretService":        {"UnsealSecret": frames.Unary(h.UnsealSecret)},
		"api.GetResourceService":         {"GetResource": frames.Unary(h.GetResource)},
		"api.SecureMountService":         {"SecureMount": frames.Unary(h.SecureMount)},
		"api.ImagePullService":           {"PullImage": frames.Unary(h.PullImage)},
		"keyprovider.KeyProviderService": keyMethods(h.LayerKeys),
	})
}

func keyMethods(keys keyproviderpb.TTRPCKeyProviderServiceService) map[string]ttrpc.Method {
	return map[string]ttrpc.Method{"WrapKey": frames.Unary(keys.WrapKey), "UnWrapKey": frames.Unary(keys.UnWrapKey)}
}

// UnsealSecret opens a sealed secret whose signature is good.
func (h *Hub) UnsealSecret(ctx context.Context, in *pb.UnsealSecretInput) (*pb.UnsealSecretOutput, error) {
	secret, err := h.Sealed.Unseal(ctx, in.Secret)
	if err != nil {
		return nil, &failure{"unseal secret failed", err}
	}
	return &pb.UnsealSecretOutput{Plaintext: secret}, nil
}

// GetResource fetches a secret of the relying party.
func (h *Hub) GetResource(ctx context.Context, in *pb.GetResourceRequest) (*pb.GetResourceResponse, error) {
	secret, err := h.Resources.Key(ctx, in.ResourcePath)
	if err != nil {
		return nil, &failure{"get resource failed", err}
	}
	return &pb.GetResourceResponse{Resource: secret}, nil
}

var (
	errNoMount  = errors.New("storage is not joined to the data hub")
	errNoImages = errors.New("images are not pulled for callers of this socket")
)

// SecureMount mounts where a Mounts is given. Whether the mount stands is what the answer says: an error is never
// success with nothing mounted.
func (h *Hub) SecureMount(ctx context.Context, in *pb.SecureMountRequest) (*pb.SecureMountResponse, error) {
	if h.Mounts == nil {
		return nil, &failure{"secure mount failed: SecureMount is not supported", errNoMount}
	}
	if err := h.Mounts.SecureMount(ctx, in.VolumeType, in.Options, in.Flags, in.MountPoint); err != nil {
		return nil, &failure{"secure mount failed", err}
	}
	return &pb.SecureMountResponse{}, nil
}

// PullImage pulls where an Images is given.
func (h *Hub) PullImage(ctx context.Context, in *pb.ImagePullRequest) (*pb.ImagePullResponse, error) {
	if h.Images == nil {
		return nil, &failure{"Image Pull error: Failed to pull image: PullImage is not supported", errNoImages}
	}
	digest, err := h.Images.PullImage(ctx, in.ImageUrl, in.BundlePath)
	if err != nil {
		text := "Image Pull error: Failed to pull image"
		if w, ok := errors.AsType[interface {
			error
			Phrase() string
		}](err); ok {
			text += ": " + w.Phrase()
		}
		return nil, &failure{text, err}
	}
	return &pb.ImagePullResponse{ManifestDigest: digest}, nil
}
