// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

// plan is an image whose layers were all found fit before the first one is
// read.
type plan struct {
	source   v1.Image
	manifest *v1.Manifest
	config   []byte
	chosen   []bool // by layer
}

// newPlan reads manifest and configuration of an image and checks the layers
// that numbers chooses. No numbers means all layers.
func newPlan(source v1.Image, desc v1.Descriptor, numbers []int) (*plan, error) {
	m, err := image.ReadManifest(source, desc)
	if err != nil {
		return nil, err
	}
	config, err := image.ReadConfig(source, m)
	if err != nil {
		return nil, err
	}
	p := &plan{source: source, manifest: m, config: config}
	if p.chosen, err = choose(numbers, len(m.Layers)); err != nil {
		return nil, err
	}
	for i, layer := range m.Layers {
		if !p.chosen[i] {
			if _, ok := image.OCILayerType(layer.MediaType); !ok && desc.MediaType == types.DockerManifestSchema2 {
				return nil, fmt.Errorf("layer %d (%s): media type %q has no OCI form", i, layer.Digest, layer.MediaType)
			}
			continue
		}
		if err := checkEncryptable(layer); err != nil {
			return nil, fmt.Errorf("layer %d (%s): %w", i, layer.Digest, err)
		}
	}
	return p, nil
}

// choose turns layer numbers, counted from 0 or, negative, from behind, into a
// mark for each layer.
func choose(numbers []int, layers int) ([]bool, error) {
	if layers == 0 {
		return nil, errors.New("the image has no layers")
	}
	chosen := make([]bool, layers)
	for i := range chosen {
		chosen[i] = len(numbers) == 0
	}
	for _, n := range numbers {
		i := n
		if i < 0 {
			i += layers
		}
		if i < 0 || i >= layers {
			return nil, fmt.Errorf("layer %d does not exist: the image has %d, numbered 0 to %d or -%d to -1", n, layers, layers-1, layers)
		}
		if chosen[i] {
			return nil, fmt.Errorf("layer %d is named twice", n)
		}
		chosen[i] = true
	}
	return chosen, nil
}

// run encrypts the chosen layers and returns the new image.
func (p *plan) run(ctx context.Context, o Options, dir string) (v1.Image, []Layer, error) {
	built := &image.Built{Config: p.config, Layers: make(map[v1.Hash]partial.CompressedLayer)}
	m := p.manifest.DeepCopy()
	m.MediaType = types.OCIManifestSchema1
	m.Config.MediaType = types.OCIConfigJSON
	var report []Layer
	for i, desc := range p.manifest.Layers {
		layer, err := p.runLayer(ctx, i, desc, o, dir)
		if err != nil {
			return nil, nil, fmt.Errorf("encrypting layer %d (%s): %w", i, desc.Digest, err)
		}
		built.Layers[layer.Desc.Digest] = layer
		m.Layers[i] = layer.Desc
		done := Layer{
			Number: i, Encrypted: p.chosen[i], Source: desc.Digest.String(), Digest: layer.Desc.Digest.String(),
			Size: layer.Desc.Size, MediaType: string(layer.Desc.MediaType),
		}
		report = append(report, done)
		o.Progress(done)
	}
	var err error
	if built.Manifest, err = json.Marshal(m); err != nil {
		return nil, nil, fmt.Errorf("encoding image manifest: %w", err)
	}
	// What is written must be readable by our own rules.
	if _, err := image.ParseManifest(bytes.Clone(built.Manifest)); err != nil {
		return nil, nil, err
	}
	img, err := partial.CompressedToImage(built)
	return img, report, err
}

func (p *plan) runLayer(ctx context.Context, i int, desc v1.Descriptor, o Options, dir string) (*image.BuiltLayer, error) {
	if !p.chosen[i] {
		if oci, ok := image.OCILayerType(desc.MediaType); ok {
			desc.MediaType = oci
		}
		return image.FromSource(p.source, desc), nil
	}
	blob, err := image.OpenBlob(p.source, desc)
	if err != nil {
		return nil, err
	}
	s, err := encryptLayer(ctx, blob, desc, o.Key, dir)
	if err != nil {
		return nil, err
	}
	return fromFile(s), nil
}
