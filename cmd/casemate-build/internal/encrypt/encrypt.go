// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

// Key is a key-encryption key and its name.
type Key struct {
	// KEK has 32 bytes. It stays the caller's, who clears it.
	KEK []byte
	// ID is "kbs:///REPOSITORY/TYPE/TAG".
	ID string
}

// Options say what to encrypt and with what.
type Options struct {
	Key Key
	// Layers are the numbers of the layers to encrypt, from 0, or from -1 for
	// the last one downwards. Empty means all. In an index they apply to each
	// image.
	Layers []int
	// Platform chooses one image of an index; nil means all of them.
	Platform *v1.Platform
	// TempDir is where encrypted layers wait; empty means os.TempDir.
	TempDir string
	// Progress is called after each layer. Must not be nil.
	Progress func(Layer)
}

// Layer is the report of one layer.
type Layer struct {
	Number    int    `json:"number"`
	Encrypted bool   `json:"encrypted"`
	Source    string `json:"source"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"media_type"`
}

// Image is the report of one image.
type Image struct {
	// Platform is empty if nothing says which.
	Platform string  `json:"platform,omitempty"`
	Digest   string  `json:"digest"`
	Layers   []Layer `json:"layers"`
}

// Result is an encrypted image or index. Its blobs are read from temporary
// files until Close, and from the source where a layer was left as it is.
type Result struct {
	Content image.Content
	Images  []Image
	dir     string
}

// Close removes the temporary files.
func (r *Result) Close() error { return os.RemoveAll(r.dir) }

// Encrypt makes the encrypted form of source. Everything that can be refused
// without reading a layer is refused first. With an error nothing is left
// behind.
func Encrypt(ctx context.Context, source *image.Content, o Options) (result *Result, err error) {
	dir, err := os.MkdirTemp(o.TempDir, "casemate-build-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for encrypted layers: %w", err)
	}
	r := &Result{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if source.Image != nil {
		err = r.encryptImage(ctx, source, o)
	} else {
		err = r.encryptIndex(ctx, source, o)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Result) encryptImage(ctx context.Context, source *image.Content, o Options) error {
	p, err := newPlan(source.Image, source.Descriptor, o.Layers)
	if err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(p.config))
	if err != nil {
		return fmt.Errorf("reading image config: %w", err)
	}
	platform := config.Platform()
	if o.Platform != nil && (platform == nil || !platform.Satisfies(*o.Platform)) {
		return fmt.Errorf("the image is for %s, not for %s", describe(platform), o.Platform)
	}
	img, report, err := p.run(ctx, o, r.dir)
	if err != nil {
		return err
	}
	return r.finishImage(img, platformName(platform), report)
}

// finishImage makes img the whole result.
func (r *Result) finishImage(img v1.Image, platform string, layers []Layer) error {
	desc, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	r.Content = image.Content{Descriptor: *desc, Image: img}
	r.Images = []Image{{Platform: platform, Digest: desc.Digest.String(), Layers: layers}}
	return nil
}

// child is one image of an index.
type child struct {
	desc v1.Descriptor
	plan *plan
}

func (r *Result) encryptIndex(ctx context.Context, source *image.Content, o Options) error {
	index, err := source.ReadIndex()
	if err != nil {
		return err
	}
	children, err := planChildren(source.Index, index, o)
	if err != nil {
		return err
	}
	if o.Platform != nil {
		c := children[0]
		img, report, err := c.plan.run(ctx, o, r.dir)
		if err != nil {
			return fmt.Errorf("image for %s: %w", describe(c.desc.Platform), err)
		}
		return r.finishImage(img, platformName(c.desc.Platform), report)
	}
	built := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, c := range children {
		img, report, err := c.plan.run(ctx, o, r.dir)
		if err != nil {
			return fmt.Errorf("image for %s: %w", describe(c.desc.Platform), err)
		}
		desc, err := partial.Descriptor(img)
		if err != nil {
			return err
		}
		desc.Platform, desc.Annotations = c.desc.Platform, c.desc.Annotations
		built = mutate.AppendManifests(built, mutate.IndexAddendum{Add: img, Descriptor: *desc})
		r.Images = append(r.Images, Image{Platform: platformName(c.desc.Platform), Digest: desc.Digest.String(), Layers: report})
	}
	if len(index.Annotations) > 0 {
		built = mutate.Annotations(built, index.Annotations).(v1.ImageIndex)
	}
	desc, err := partial.Descriptor(built)
	if err != nil {
		return err
	}
	r.Content = image.Content{Descriptor: *desc, Index: built}
	return nil
}

// planChildren checks every image of the index, or the one of the platform.
func planChildren(source v1.ImageIndex, index *v1.IndexManifest, o Options) ([]child, error) {
	var children []child
	var seen []string
	for _, desc := range index.Manifests {
		seen = append(seen, describe(desc.Platform))
		if o.Platform != nil && (desc.Platform == nil || !desc.Platform.Satisfies(*o.Platform)) {
			continue
		}
		if !desc.MediaType.IsImage() {
			return nil, fmt.Errorf("the index holds %s, whose media type %q is none of an image: choose an image with --platform", desc.Digest, desc.MediaType)
		}
		img, err := source.Image(desc.Digest)
		if err != nil {
			return nil, fmt.Errorf("reading image manifest %s: %w", desc.Digest, err)
		}
		p, err := newPlan(img, desc, o.Layers)
		if err != nil {
			return nil, fmt.Errorf("image for %s (%s): %w%s", describe(desc.Platform), desc.Digest, err, adviceFor(desc, o))
		}
		children = append(children, child{desc: desc, plan: p})
	}
	if len(children) == 0 {
		return nil, fmt.Errorf("the index has no image for %s, only %v", describe(o.Platform), seen)
	}
	if o.Platform != nil && len(children) > 1 {
		return nil, fmt.Errorf("the index has %d images for %s, say which variant: %v", len(children), o.Platform, seen)
	}
	return children, nil
}

// adviceFor helps with the attestation manifests that buildkit adds to an
// index: they are about the plain images and have no place beside encrypted
// ones.
func adviceFor(desc v1.Descriptor, o Options) string {
	if o.Platform == nil && desc.Platform != nil && desc.Platform.OS == "unknown" {
		return "; this is no image but a statement about one: choose an image with --platform"
	}
	return ""
}

func platformName(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	return p.String()
}

func describe(p *v1.Platform) string {
	if name := platformName(p); name != "" {
		return name
	}
	return "no named platform"
}
