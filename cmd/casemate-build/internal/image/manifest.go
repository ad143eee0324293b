// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// MaxManifestBytes is what registries must accept and clients may refuse
	// beyond (OCI distribution-spec, "Pushing Manifests").
	MaxManifestBytes = 4 << 20
	// MaxConfigBytes bounds an image configuration; real ones are a few KiB.
	MaxConfigBytes = 8 << 20

	schemaVersion = 2
)

// ParseManifest reads an OCI or Docker schema 2 image manifest: exact case, no
// repeated names, every blob with a sha256 digest and a size.
func ParseManifest(raw []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := parse(raw, &m); err != nil {
		return nil, fmt.Errorf("reading image manifest: %w", err)
	}
	if m.SchemaVersion != schemaVersion {
		return nil, fmt.Errorf("reading image manifest: schema version %d, want %d", m.SchemaVersion, schemaVersion)
	}
	if m.MediaType != "" && !m.MediaType.IsImage() {
		return nil, fmt.Errorf("reading image manifest: media type %q is none of an image", m.MediaType)
	}
	if err := checkDescriptor(m.Config); err != nil {
		return nil, fmt.Errorf("reading image manifest: config: %w", err)
	}
	if m.Config.Size > MaxConfigBytes {
		return nil, fmt.Errorf("reading image manifest: config of %d bytes, want at most %d", m.Config.Size, MaxConfigBytes)
	}
	for i, layer := range m.Layers {
		if err := checkDescriptor(layer); err != nil {
			return nil, fmt.Errorf("reading image manifest: layer %d: %w", i, err)
		}
	}
	return &m, nil
}

// ParseIndex reads an OCI image index or Docker manifest list with the same
// strictness.
func ParseIndex(raw []byte) (*v1.IndexManifest, error) {
	var m v1.IndexManifest
	if err := parse(raw, &m); err != nil {
		return nil, fmt.Errorf("reading image index: %w", err)
	}
	if m.SchemaVersion != schemaVersion {
		return nil, fmt.Errorf("reading image index: schema version %d, want %d", m.SchemaVersion, schemaVersion)
	}
	if m.MediaType != "" && !m.MediaType.IsIndex() {
		return nil, fmt.Errorf("reading image index: media type %q is none of an index", m.MediaType)
	}
	for i, manifest := range m.Manifests {
		if err := checkDescriptor(manifest); err != nil {
			return nil, fmt.Errorf("reading image index: manifest %d: %w", i, err)
		}
	}
	return &m, nil
}

func parse(raw []byte, into any) error {
	if len(raw) > MaxManifestBytes {
		return fmt.Errorf("%d bytes, want at most %d", len(raw), MaxManifestBytes)
	}
	return json.Unmarshal(raw, into)
}

func checkDescriptor(d v1.Descriptor) error {
	const sha256HexDigits = 64
	if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != sha256HexDigits {
		return fmt.Errorf("digest %q, want sha256", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: size %d", d.Digest, d.Size)
	}
	if d.MediaType == "" {
		return fmt.Errorf("%s: no media type", d.Digest)
	}
	return nil
}

// checkBytes compares a document with the digest and size it was found by.
func checkBytes(raw []byte, digest v1.Hash, size int64) error {
	got, n, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s has %d bytes, want %d", digest, n, size)
	}
	if got != digest {
		return fmt.Errorf("digest is %s, want %s", got, digest)
	}
	return nil
}

// ReadManifest returns the manifest of img after comparing its bytes with desc.
func ReadManifest(img v1.Image, desc v1.Descriptor) (*v1.Manifest, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("reading image manifest %s: %w", desc.Digest, err)
	}
	if err := checkBytes(raw, desc.Digest, desc.Size); err != nil {
		return nil, fmt.Errorf("reading image manifest: %w", err)
	}
	return ParseManifest(raw)
}

// ReadConfig returns the configuration of img after comparing its bytes with
// its manifest's descriptor.
func ReadConfig(img v1.Image, m *v1.Manifest) ([]byte, error) {
	if !m.Config.MediaType.IsConfig() {
		return nil, fmt.Errorf("reading image config: media type %q is none of a container image", m.Config.MediaType)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading image config %s: %w", m.Config.Digest, err)
	}
	if err := checkBytes(raw, m.Config.Digest, m.Config.Size); err != nil {
		return nil, fmt.Errorf("reading image config: %w", err)
	}
	return raw, nil
}
