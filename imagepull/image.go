// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a pulled image: every byte of it has been verified, every key it
// needs has been unwrapped for it and the policy has admitted it. It is not
// changed after Pull has returned it and may be shared.
type Image struct {
	Reference string              // as requested
	Digest    v1.Hash             // of what the reference names, a manifest or an index
	Manifest  v1.Hash             // of the platform's manifest; equals Digest without an index
	Platform  ocispec.Platform    // of the config
	Config    ocispec.ImageConfig // how the image wants to be run

	// Admitted names the policy's entry that admitted it and what it requires.
	Admitted string
	// Encrypted is how many of the manifest's layers came encrypted.
	Encrypted int

	// Layers are directories in overlayfs form, bottom first: each layer once,
	// at its topmost place, and none below one that hides them all. They belong
	// to the Puller, must not be written to and, where they are mounts of images,
	// are empty once it is closed.
	Layers []string

	layers []*layer // parallel to Layers
	lower  []string // Layers, or an empty directory when there are none
}

// stack brings a manifest's layers, bottom first, into the form of Image.Layers.
// A layer that occurs again changes nothing where it occurs first: all of its
// entries are set once more above, by itself. So only the topmost stays;
// overlayfs refuses the same directory twice.
func stack(layers []*layer) []*layer {
	seen := map[*layer]bool{}
	var top []*layer
	for _, l := range slices.Backward(layers) {
		if seen[l] {
			continue
		}
		seen[l] = true
		top = append(top, l)
		if l.opaque {
			break // overlayfs ignores the mark on a layer's root
		}
	}
	slices.Reverse(top)
	return top
}
