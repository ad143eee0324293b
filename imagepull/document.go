// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxDocument caps a manifest, an index and a config: 4 MiB is what the OCI
	// distribution-spec asks registries to accept.
	maxDocument = 4 << 20
	// maxEntries caps the manifests of one index. Indexes of real projects hold
	// some dozens, with attestations twice as many.
	maxEntries = 1000
	// maxLayers is the kernel's limit on overlayfs lower layers (OVL_MAX_STACK).
	maxLayers = 500
	// maxBlob caps what a descriptor may declare: 1 PiB is more than any disk that
	// a layer could go to, and so far below the end of int64 that the sizes of
	// maxLayers of them can be added up.
	maxBlob = 1 << 50
)

const (
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// descriptor is an OCI content descriptor with checked digest and size.
type descriptor struct {
	mediaType    string
	artifactType string
	digest       v1.Hash
	size         int64
	annotations  map[string]string
	platform     *ocispec.Platform
}

// document is a decoded manifest or index: index is nil for a manifest.
type document struct {
	digest v1.Hash // of the bytes as received
	config descriptor
	layers []layerDescriptor // bottom first
	index  []descriptor
}

type wireDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Artifact    string            `json:"artifactType"`
	Digest      string            `json:"digest"`
	Size        *int64            `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *ocispec.Platform `json:"platform"`
}

type wireDocument struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *wireDescriptor `json:"config"`
	Layers        wireLayers      `json:"layers"`
	Manifests     wireEntries     `json:"manifests"`
	FSLayers      jsontext.Value  `json:"fsLayers"`
}

// wireLayers and wireEntries stop at their limit while they are read: a document
// of maxDocument bytes has room for a million empty descriptors.
type (
	wireLayers  []wireDescriptor
	wireEntries []wireDescriptor
)

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (l *wireLayers) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	*l, err = decodeDescriptors(dec, maxLayers, "a manifest of more than %d layers")
	return err
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (e *wireEntries) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	*e, err = decodeDescriptors(dec, maxEntries, "an index of more than %d manifests")
	return err
}

// decodeDescriptors reads an array, nil for null; excess is the error's text.
func decodeDescriptors(dec *jsontext.Decoder, limit int, excess string) ([]wireDescriptor, error) {
	begin, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch begin.Kind() {
	case 'n':
		return nil, nil
	case '[':
	default:
		return nil, fmt.Errorf("%w: %s, want an array", ErrManifest, begin.Kind())
	}
	list := []wireDescriptor{}
	for dec.PeekKind() != ']' {
		if len(list) == limit {
			return nil, fmt.Errorf("%w: "+excess, ErrTooLarge, limit)
		}
		var d wireDescriptor
		if err := json.UnmarshalDecode(dec, &d); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	_, err = dec.ReadToken()
	return list, err
}

// decode reads hostile JSON: names match in their exact case, a name that
// occurs twice, invalid UTF-8 and trailing data are errors. Unknown members are
// ignored, as the OCI image-spec requires.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	if e, ok := errors.AsType[*json.SemanticError](err); ok && is[Fault](e.Err) {
		return e.Err // named by a type of this package
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return nil
}

// parseDocument decodes the bytes of a manifest or an index, whose digest the
// caller has verified. What it is follows from its own bytes alone, never from
// an HTTP header: a document that could be read as both is refused (OCI
// image-spec, GHSA-77vh-xpmg-72qh).
func parseDocument(raw []byte, digest v1.Hash) (*document, error) {
	var w wireDocument
	if err := decode(raw, &w); err != nil {
		return nil, err
	}
	switch {
	case w.SchemaVersion == 1 || w.FSLayers != nil:
		return nil, fmt.Errorf("%w: a schema 1 manifest, which has no verifiable layers", ErrUnsupported)
	case w.SchemaVersion != 2:
		return nil, fmt.Errorf("%w: schemaVersion: got %d, want 2", ErrManifest, w.SchemaVersion)
	case w.Manifests != nil && (w.Layers != nil || w.Config != nil):
		return nil, fmt.Errorf("%w: both an index and a manifest", ErrManifest)
	case w.Manifests != nil:
		return parseIndex(&w, digest)
	case w.Config != nil:
		return parseManifest(&w, digest)
	}
	return nil, fmt.Errorf("%w: neither an index nor a manifest", ErrManifest)
}

func parseIndex(w *wireDocument, digest v1.Hash) (*document, error) {
	if err := wantType(w.MediaType, typeOCIIndex, typeDockerList); err != nil {
		return nil, err
	}
	doc := &document{digest: digest, index: make([]descriptor, 0, len(w.Manifests))}
	for i := range w.Manifests {
		d, err := w.Manifests[i].check()
		if err != nil {
			return nil, fmt.Errorf("index entry %d: %w", i, err)
		}
		doc.index = append(doc.index, d)
	}
	return doc, nil
}

func parseManifest(w *wireDocument, digest v1.Hash) (*document, error) {
	if err := wantType(w.MediaType, typeOCIManifest, typeDockerManifest); err != nil {
		return nil, err
	}
	config, err := w.Config.check()
	if err != nil {
		return nil, fmt.Errorf("config descriptor: %w", err)
	}
	if t := config.mediaType; t != typeOCIConfig && t != typeDockerConfig {
		return nil, fmt.Errorf("%w: an artifact of type %.100q, not a container image", ErrUnsupported, t)
	}
	doc := &document{digest: digest, config: config, layers: make([]layerDescriptor, 0, len(w.Layers))}
	for i := range w.Layers {
		d, err := w.Layers[i].check()
		if err != nil {
			return nil, fmt.Errorf("layer descriptor %d: %w", i, err)
		}
		layer, err := parseLayerType(d)
		if err != nil {
			return nil, fmt.Errorf("layer descriptor %d: %w", i, err)
		}
		doc.layers = append(doc.layers, layer)
	}
	return doc, nil
}

// wantType checks the document's own mediaType, which OCI lets be absent.
func wantType(got string, want ...string) error {
	if got == "" {
		return nil
	}
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%w: mediaType: got %.100q, want %q", ErrManifest, got, want)
}

func (w *wireDescriptor) check() (descriptor, error) {
	digest, err := parseDigest(w.Digest)
	if err != nil {
		return descriptor{}, err
	}
	switch {
	case w.Size == nil || *w.Size < 0:
		return descriptor{}, fmt.Errorf("%w: blob %s has no valid size", ErrManifest, digest)
	case *w.Size > maxBlob:
		return descriptor{}, fmt.Errorf("%w: blob %s of %d bytes, want at most %d", ErrTooLarge, digest, *w.Size, int64(maxBlob))
	}
	return descriptor{
		mediaType: w.MediaType, artifactType: w.Artifact, digest: digest, size: *w.Size, annotations: w.Annotations, platform: w.Platform,
	}, nil
}
