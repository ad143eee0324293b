// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

// Layer is the report of one layer.
type Layer struct {
	Number int    `json:"number"`
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	// File is the device, the same for equal layers.
	File string `json:"file"`
	Size int64  `json:"size"`
	// Annotations are what the new manifest says of the layer, and what measured configuration can say of it.
	Annotations map[string]string `json:"annotations"`
}

// Result is the annotated image. Its blobs are those of the source.
type Result struct {
	Content image.Content
	Layers  []Layer
}

// Make writes the device of each layer into dir, which is made if need be, and returns the annotated image. progress
// is called after each layer. What is in dir after an error is of no use.
func Make(ctx context.Context, source *image.Content, dir string, progress func(Layer)) (*Result, error) {
	p, err := newPlan(source)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as its files
		return nil, err
	}
	built := &image.Built{Config: p.config, Layers: map[v1.Hash]partial.CompressedLayer{}}
	m := p.manifest.DeepCopy()
	m.MediaType, m.Config.MediaType = types.OCIManifestSchema1, types.OCIConfigJSON
	r := &Result{}
	done := map[v1.Hash]device{}
	for i, desc := range p.manifest.Layers {
		d, ok := done[p.diffIDs[i]]
		if !ok {
			if d, err = makeDevice(ctx, source.Image, desc, p.diffIDs[i], dir); err != nil {
				return nil, fmt.Errorf("layer %d (%s): %w", i, desc.Digest, err)
			}
			done[p.diffIDs[i]] = d
		}
		said := d.Annotations()
		desc.MediaType, _ = image.OCILayerType(desc.MediaType)
		all := maps.Clone(desc.Annotations)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, said)
		desc.Annotations = all
		m.Layers[i] = desc
		built.Layers[desc.Digest] = image.FromSource(source.Image, desc)
		l := Layer{Number: i, Digest: desc.Digest.String(), DiffID: p.diffIDs[i].String(), File: d.file, Size: d.size, Annotations: said}
		r.Layers = append(r.Layers, l)
		progress(l)
	}
	if built.Manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("encoding image manifest: %w", err)
	}
	// What is written must be readable by our own rules.
	if _, err := image.ParseManifest(bytes.Clone(built.Manifest)); err != nil {
		return nil, err
	}
	img, err := partial.CompressedToImage(built)
	if err != nil {
		return nil, err
	}
	made, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	r.Content = image.Content{Descriptor: *made, Image: img}
	return r, nil
}

// plan is an image all of whose layers were found fit before the first one is read.
type plan struct {
	manifest *v1.Manifest
	config   []byte
	diffIDs  []v1.Hash
}

func newPlan(source *image.Content) (*plan, error) {
	m, err := image.ReadManifest(source.Image, source.Descriptor)
	if err != nil {
		return nil, err
	}
	config, err := image.ReadConfig(source.Image, m)
	if err != nil {
		return nil, err
	}
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return nil, fmt.Errorf("reading image config: %w", err)
	}
	p := &plan{manifest: m, config: config, diffIDs: parsed.RootFS.DiffIDs}
	switch {
	case len(m.Layers) == 0:
		return nil, errors.New("the image has no layers")
	case len(p.diffIDs) != len(m.Layers):
		return nil, fmt.Errorf("reading image config: %d diff_ids, want %d, one a layer", len(p.diffIDs), len(m.Layers))
	}
	for i, l := range m.Layers {
		if strings.HasSuffix(string(l.MediaType), image.EncryptedSuffix) {
			return nil, fmt.Errorf("layer %d (%s): the layer is encrypted: its device would be plain", i, l.Digest)
		}
		if _, ok := image.OCILayerType(l.MediaType); !ok {
			return nil, fmt.Errorf("layer %d (%s): unknown media type %q", i, l.Digest, l.MediaType)
		}
	}
	return p, nil
}
