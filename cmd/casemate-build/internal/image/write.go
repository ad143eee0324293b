// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// CheckTarget says whether an image can be written to l, without writing.
func CheckTarget(l Location) error {
	if l.Digest != (v1.Hash{}) {
		return fmt.Errorf("writing to %s: a digest is no name to write to", l)
	}
	if l.Ref != nil {
		if _, ok := l.Ref.(name.Tag); !ok {
			return fmt.Errorf("writing to %s: a digest is no name to write to", l)
		}
		return nil
	}
	index, err := readLayout(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return checkEmptyDir(l.Dir)
	}
	if err != nil {
		return fmt.Errorf("writing to %s: %w", l, err)
	}
	if l.Tag == "" && len(index.Manifests) > 0 {
		return fmt.Errorf("writing to %s: the layout has images already, name the new one with %s:TAG", l, l)
	}
	return nil
}

func checkEmptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing to %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("writing to %s: the directory is neither empty nor an OCI layout", dir)
	}
	return nil
}

// Write stores content at l, blobs first and the name last. In a layout the
// name moves from an earlier image; in both cases blobs of a failed write can
// stay behind, which nothing refers to.
func (c *Client) Write(ctx context.Context, l Location, content *Content) error {
	if err := CheckTarget(l); err != nil {
		return err
	}
	var err error
	switch {
	case l.Ref == nil:
		err = writeLayout(l, content)
	case content.Image != nil:
		err = remote.Write(l.Ref, content.Image, c.options(ctx)...)
	default:
		err = remote.WriteIndex(l.Ref, content.Index, c.options(ctx)...)
	}
	if err != nil {
		return fmt.Errorf("writing to %s: %w", l, err)
	}
	return nil
}

func writeLayout(l Location, content *Content) error {
	if _, err := readLayout(l.Dir); errors.Is(err, fs.ErrNotExist) {
		if _, err := layout.Write(l.Dir, empty.Index); err != nil {
			return err
		}
	}
	var options []layout.Option
	replaces := func(v1.Descriptor) bool { return false }
	if l.Tag != "" {
		options = append(options, layout.WithAnnotations(map[string]string{refName: l.Tag}))
		replaces = match.Name(l.Tag)
	}
	if content.Image != nil {
		return layout.Path(l.Dir).ReplaceImage(content.Image, replaces, options...)
	}
	return layout.Path(l.Dir).ReplaceIndex(content.Index, replaces, options...)
}
