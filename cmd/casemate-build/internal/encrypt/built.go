// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

// builtImage is a new manifest over spooled layers and layers of the source.
type builtImage struct {
	manifest []byte
	config   []byte
	layers   map[v1.Hash]partial.CompressedLayer
}

func (b *builtImage) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (b *builtImage) RawManifest() ([]byte, error)        { return b.manifest, nil }
func (b *builtImage) RawConfigFile() ([]byte, error)      { return b.config, nil }

func (b *builtImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if layer, ok := b.layers[h]; ok {
		return layer, nil
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// builtLayer is one layer of a builtImage.
type builtLayer struct {
	desc v1.Descriptor
	open func() (io.ReadCloser, error)
}

func (l *builtLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *builtLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *builtLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *builtLayer) Descriptor() (*v1.Descriptor, error) { return &l.desc, nil }
func (l *builtLayer) Compressed() (io.ReadCloser, error)  { return l.open() }

// fromFile is a layer that was spooled.
func fromFile(s spooled) *builtLayer {
	return &builtLayer{desc: s.desc, open: func() (io.ReadCloser, error) { return os.Open(s.file) }}
}

// fromSource is a layer that stays as it is. The copy is checked on its way.
func fromSource(source v1.Image, desc v1.Descriptor) *builtLayer {
	return &builtLayer{desc: desc, open: func() (io.ReadCloser, error) {
		blob, err := openBlob(source, desc)
		if err != nil {
			return nil, err
		}
		return image.Verify(blob, desc), nil
	}}
}

func openBlob(source v1.Image, desc v1.Descriptor) (io.ReadCloser, error) {
	layer, err := source.LayerByDigest(desc.Digest)
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}
