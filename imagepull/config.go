// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageConfig is what a pull needs of the config blob. The history and the
// creation date are not decoded: they decide nothing and are often odd.
type imageConfig struct {
	platform ocispec.Platform
	config   ocispec.ImageConfig
	diffIDs  []v1.Hash // bottom first, one a layer
}

// parseConfig decodes an OCI or Docker image config, whose digest the caller has
// verified, for a manifest of the given number of layers.
func parseConfig(raw []byte, layers int) (*imageConfig, error) {
	var w struct {
		Architecture string              `json:"architecture"`
		OS           string              `json:"os"`
		Variant      string              `json:"variant"`
		Config       ocispec.ImageConfig `json:"config"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := decode(raw, &w); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	if w.RootFS.Type != "layers" {
		return nil, fmt.Errorf("image config: %w: rootfs type: got %.40q, want \"layers\"", ErrManifest, w.RootFS.Type)
	}
	if len(w.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("image config: %w: got %d diff_ids, want %d, one a layer", ErrManifest, len(w.RootFS.DiffIDs), layers)
	}
	c := &imageConfig{
		platform: ocispec.Platform{Architecture: w.Architecture, OS: w.OS, Variant: w.Variant},
		config:   w.Config,
	}
	for i, s := range w.RootFS.DiffIDs {
		h, err := parseDigest(s)
		if err != nil {
			return nil, fmt.Errorf("image config: diff_id %d: %w", i, err)
		}
		c.diffIDs = append(c.diffIDs, h)
	}
	return c, nil
}
