// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Content is an image or an index of images that was found or made.
type Content struct {
	// Descriptor has the media type, digest and size of the manifest or index.
	Descriptor v1.Descriptor
	// Image is nil for an index.
	Image v1.Image
	// Index is nil for an image.
	Index v1.ImageIndex
}

// ReadIndex returns the index of c, whose bytes were compared with c's
// descriptor when c was opened.
func (c *Content) ReadIndex() (*v1.IndexManifest, error) {
	raw, err := c.Index.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("reading image index %s: %w", c.Descriptor.Digest, err)
	}
	return ParseIndex(raw)
}

// check compares the bytes of c with its descriptor and parses them strictly.
func (c *Content) check() error {
	if c.Image != nil {
		_, err := ReadManifest(c.Image, c.Descriptor)
		return err
	}
	raw, err := c.Index.RawManifest()
	if err != nil {
		return fmt.Errorf("reading image index %s: %w", c.Descriptor.Digest, err)
	}
	if err := checkBytes(raw, c.Descriptor.Digest, c.Descriptor.Size); err != nil {
		return fmt.Errorf("reading image index: %w", err)
	}
	_, err = ParseIndex(raw)
	return err
}
