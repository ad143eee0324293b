// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Open finds the image or index at l and reads its manifest. Blobs are read
// later, while ctx is alive.
func (c *Client) Open(ctx context.Context, l Location) (*Content, error) {
	var content *Content
	var err error
	if l.Ref != nil {
		content, err = c.openRegistry(ctx, l)
	} else {
		content, err = openLayout(l)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", l, err)
	}
	if err := content.check(); err != nil {
		return nil, fmt.Errorf("opening %s: %w", l, err)
	}
	return content, nil
}

// IsNotFound reports whether err says that the registry or layout is there and
// the image is not.
func IsNotFound(err error) bool {
	var te *transport.Error
	return errors.Is(err, errNoImage) || errors.As(err, &te) && te.StatusCode == http.StatusNotFound
}

func (c *Client) openRegistry(ctx context.Context, l Location) (*Content, error) {
	desc, err := remote.Get(l.Ref, c.options(ctx)...)
	if err != nil {
		return nil, err
	}
	content := &Content{Descriptor: v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	switch {
	case desc.MediaType.IsImage():
		content.Image, err = desc.Image()
	case desc.MediaType.IsIndex():
		content.Index, err = desc.ImageIndex()
	default:
		err = fmt.Errorf("media type %q is neither of an image nor of an index", desc.MediaType)
	}
	return content, err
}

func openLayout(l Location) (*Content, error) {
	index, err := readLayout(l.Dir)
	if err != nil {
		return nil, err
	}
	desc, err := choose(index, l)
	if err != nil {
		return nil, err
	}
	if desc.Size > MaxManifestBytes {
		return nil, fmt.Errorf("manifest %s of %d bytes, want at most %d", desc.Digest, desc.Size, MaxManifestBytes)
	}
	root, err := layout.Path(l.Dir).ImageIndex()
	if err != nil {
		return nil, err
	}
	content := &Content{Descriptor: desc}
	switch {
	case desc.MediaType.IsImage():
		content.Image, err = root.Image(desc.Digest)
	case desc.MediaType.IsIndex():
		content.Index, err = root.ImageIndex(desc.Digest)
	default:
		err = fmt.Errorf("media type %q is neither of an image nor of an index", desc.MediaType)
	}
	return content, err
}
