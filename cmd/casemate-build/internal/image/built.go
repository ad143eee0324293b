// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Built is a new OCI manifest over layers that were made or are those of another image. partial.CompressedToImage
// makes an image of it.
type Built struct {
	Manifest []byte
	Config   []byte
	Layers   map[v1.Hash]partial.CompressedLayer
}

// MediaType is that of an OCI manifest.
func (b *Built) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest returns Manifest.
func (b *Built) RawManifest() ([]byte, error) { return b.Manifest, nil }

// RawConfigFile returns Config.
func (b *Built) RawConfigFile() ([]byte, error) { return b.Config, nil }

// LayerByDigest finds a layer.
func (b *Built) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if layer, ok := b.Layers[h]; ok {
		return layer, nil
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// BuiltLayer is one layer of a Built.
type BuiltLayer struct {
	Desc v1.Descriptor
	Open func() (io.ReadCloser, error)
}

// Digest is the descriptor's.
func (l *BuiltLayer) Digest() (v1.Hash, error) { return l.Desc.Digest, nil }

// Size is the descriptor's.
func (l *BuiltLayer) Size() (int64, error) { return l.Desc.Size, nil }

// MediaType is the descriptor's.
func (l *BuiltLayer) MediaType() (types.MediaType, error) { return l.Desc.MediaType, nil }

// Descriptor returns Desc.
func (l *BuiltLayer) Descriptor() (*v1.Descriptor, error) { return &l.Desc, nil }

// Compressed opens the blob.
func (l *BuiltLayer) Compressed() (io.ReadCloser, error) { return l.Open() }

// FromSource is a layer that stays as it is. The copy is checked on its way.
func FromSource(source v1.Image, desc v1.Descriptor) *BuiltLayer {
	return &BuiltLayer{Desc: desc, Open: func() (io.ReadCloser, error) {
		blob, err := OpenBlob(source, desc)
		if err != nil {
			return nil, err
		}
		return Verify(blob, desc), nil
	}}
}

// OpenBlob opens a layer's blob as it is stored. The caller closes.
func OpenBlob(source v1.Image, desc v1.Descriptor) (io.ReadCloser, error) {
	layer, err := source.LayerByDigest(desc.Digest)
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}
