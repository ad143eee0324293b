// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/blockcipher"
	"github.com/containers/ocicrypt/config"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/keyprovider"
)

const keyID = "kbs:///default/image-kek/1"

func testKey() Key {
	return Key{KEK: bytes.Repeat([]byte{9}, keyprovider.KEKBytes), ID: keyID}
}

func options(t *testing.T) Options {
	return Options{Key: testKey(), TempDir: t.TempDir(), Progress: func(Layer) {}}
}

// testImage has one layer of each media type, with its number as content.
func testImage(t *testing.T, manifestType types.MediaType, layers ...types.MediaType) v1.Image {
	t.Helper()
	configType := types.OCIConfigJSON
	if manifestType == types.DockerManifestSchema2 {
		configType = types.DockerConfigJSON
	}
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, configType), manifestType)
	var adds []mutate.Addendum
	for i, mt := range layers {
		adds = append(adds, mutate.Addendum{
			Layer:       static.NewLayer([]byte(fmt.Sprintf("content of layer %d", i)), mt),
			Annotations: map[string]string{"kept": fmt.Sprint(i)},
			MediaType:   mt,
		})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func contentOf(t *testing.T, thing partial.Describable) *image.Content {
	t.Helper()
	desc, err := partial.Descriptor(thing)
	if err != nil {
		t.Fatal(err)
	}
	c := &image.Content{Descriptor: *desc}
	switch x := thing.(type) {
	case v1.Image:
		c.Image = x
	case v1.ImageIndex:
		c.Index = x
	}
	return c
}

// unwrapper is ocicrypt's view of our key: it opens packets as a guest does.
type unwrapper struct{ kek []byte }

func (u unwrapper) Key(context.Context, string) ([]byte, error) { return bytes.Clone(u.kek), nil }

func (u unwrapper) UnwrapKey(_ *config.DecryptConfig, packet []byte) ([]byte, error) {
	guest := keyprovider.Unwrapper{Keys: u}
	return guest.Unwrap(context.Background(), packet)
}
func (u unwrapper) WrapKeys(*config.EncryptConfig, []byte) ([]byte, error) { return nil, nil }
func (u unwrapper) GetAnnotationID() string                                { return keyprovider.Annotation }
func (u unwrapper) NoPossibleKeys(map[string][][]byte) bool                { return false }
func (u unwrapper) GetPrivateKeys(map[string][][]byte) [][]byte            { return nil }
func (u unwrapper) GetKeyIdsFromPacket(string) ([]uint64, error)           { return nil, nil }
func (u unwrapper) GetRecipients(string) ([]string, error)                 { return nil, nil }

// decrypt opens a layer with ocicrypt.
func decrypt(t *testing.T, img v1.Image, desc v1.Descriptor) []byte {
	t.Helper()
	ocicrypt.RegisterKeyWrapper("provider."+keyprovider.ProviderName, unwrapper{testKey().KEK})
	reader, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{}, bytes.NewReader(read(t, img, desc)),
		ocispec.Descriptor{Annotations: desc.Annotations, MediaType: string(desc.MediaType)}, false)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// plainDigest is what the wrapped options say about the layer.
func plainDigest(t *testing.T, desc v1.Descriptor) digest.Digest {
	t.Helper()
	packet, err := base64.StdEncoding.DecodeString(desc.Annotations[keyprovider.Annotation])
	if err != nil {
		t.Fatal(err)
	}
	plbco, err := unwrapper{testKey().KEK}.UnwrapKey(nil, packet)
	if err != nil {
		t.Fatal(err)
	}
	var o blockcipher.PrivateLayerBlockCipherOptions
	if err := json.Unmarshal(plbco, &o); err != nil {
		t.Fatal(err)
	}
	return o.Digest
}

func read(t *testing.T, img v1.Image, desc v1.Descriptor) []byte {
	t.Helper()
	layer, err := img.LayerByDigest(desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	raw, err := io.ReadAll(image.Verify(blob, desc))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func mustEncrypt(t *testing.T, source *image.Content, o Options) *Result {
	t.Helper()
	r, err := Encrypt(t.Context(), source, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func manifestOf(t *testing.T, c *image.Content) *v1.Manifest {
	t.Helper()
	m, err := image.ReadManifest(c.Image, c.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEncryptImage(t *testing.T) {
	for name, c := range map[string]struct {
		manifest types.MediaType
		layers   []types.MediaType
		want     []string
	}{
		"OCI": {
			types.OCIManifestSchema1,
			[]types.MediaType{types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd, types.OCIRestrictedLayer},
			[]string{"v1.tar+encrypted", "v1.tar+gzip+encrypted", "v1.tar+zstd+encrypted", "nondistributable.v1.tar+gzip+encrypted"},
		},
		"Docker": {
			types.DockerManifestSchema2,
			[]types.MediaType{types.DockerUncompressedLayer, types.DockerLayer, types.DockerForeignLayer, image.DockerLayerZstd},
			[]string{"v1.tar+encrypted", "v1.tar+gzip+encrypted", "nondistributable.v1.tar+gzip+encrypted", "v1.tar+zstd+encrypted"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := testImage(t, c.manifest, c.layers...)
			r := mustEncrypt(t, contentOf(t, source), options(t))
			m := manifestOf(t, &r.Content)
			if m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON {
				t.Errorf("got %s with %s, want OCI types", m.MediaType, m.Config.MediaType)
			}
			sourceConfig, err := source.RawConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if config, err := r.Content.Image.RawConfigFile(); err != nil || !bytes.Equal(config, sourceConfig) {
				t.Errorf("configuration %s, %v, want %s", config, err, sourceConfig)
			}
			for i, desc := range m.Layers {
				want := fmt.Sprintf("content of layer %d", i)
				if got := string(decrypt(t, r.Content.Image, desc)); got != want {
					t.Errorf("layer %d: %q, want %q", i, got, want)
				}
				if got := plainDigest(t, desc); got != digest.FromString(want) {
					t.Errorf("layer %d: digest %s, want %s", i, got, digest.FromString(want))
				}
				if got := strings.TrimPrefix(string(desc.MediaType), "application/vnd.oci.image.layer."); got != c.want[i] {
					t.Errorf("layer %d: %s, want %s", i, got, c.want[i])
				}
				if desc.Annotations["kept"] != fmt.Sprint(i) {
					t.Errorf("layer %d lost its annotation: %v", i, desc.Annotations)
				}
				if bytes.Contains(read(t, r.Content.Image, desc), []byte("content")) {
					t.Errorf("layer %d is not encrypted", i)
				}
			}
		})
	}
}

// Guest components' client refuses null where ocicrypt's Go client does not.
func TestPublicOptionsHaveNoNull(t *testing.T) {
	r := mustEncrypt(t, contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), options(t))
	raw, err := base64.StdEncoding.DecodeString(manifestOf(t, &r.Content).Layers[0].Annotations[pubOptsAnnotation])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"`)) || !bytes.HasSuffix(raw, []byte(`","cipheroptions":{}}`)) {
		t.Errorf("got %s", raw)
	}
}

// Two runs over one image share neither key nor nonce, and neither do two
// layers of the same bytes.
func TestNothingIsReused(t *testing.T) {
	layer := static.NewLayer([]byte("the same"), types.OCILayer)
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), layer, layer)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[v1.Hash]bool{}
	for range 2 {
		r := mustEncrypt(t, contentOf(t, img), options(t))
		for _, desc := range manifestOf(t, &r.Content).Layers {
			if seen[desc.Digest] {
				t.Error("one plain layer encrypted twice to the same bytes")
			}
			seen[desc.Digest] = true
			if plain := decrypt(t, r.Content.Image, desc); string(plain) != "the same" {
				t.Errorf("got %q", plain)
			}
		}
	}
}

func TestChosenLayers(t *testing.T) {
	source := testImage(t, types.DockerManifestSchema2, types.DockerLayer, types.DockerLayer, types.DockerLayer)
	for name, c := range map[string]struct {
		numbers []int
		want    []bool
	}{
		"all":    {nil, []bool{true, true, true}},
		"first":  {[]int{0}, []bool{true, false, false}},
		"last":   {[]int{-1}, []bool{false, false, true}},
		"others": {[]int{2, -2}, []bool{false, true, true}},
	} {
		o := options(t)
		o.Layers = c.numbers
		r := mustEncrypt(t, contentOf(t, source), o)
		for i, desc := range manifestOf(t, &r.Content).Layers {
			encrypted := strings.HasSuffix(string(desc.MediaType), "+encrypted")
			if encrypted != c.want[i] || r.Images[0].Layers[i].Encrypted != c.want[i] {
				t.Errorf("%s: layer %d is %s, encrypted want %v", name, i, desc.MediaType, c.want[i])
			}
			if !encrypted {
				if got := string(read(t, r.Content.Image, desc)); got != fmt.Sprintf("content of layer %d", i) || desc.MediaType != types.OCILayer {
					t.Errorf("%s: layer %d is %q of type %s", name, i, got, desc.MediaType)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	encryptedOnce := mustEncrypt(t, contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer, types.OCILayer)), Options{
		Key: testKey(), TempDir: t.TempDir(), Layers: []int{1}, Progress: func(Layer) {},
	})
	annotated, err := mutate.Append(testImage(t, types.OCIManifestSchema1), mutate.Addendum{
		Layer:       static.NewLayer([]byte("x"), types.OCILayer),
		Annotations: map[string]string{"org.opencontainers.image.enc.keys.jwe": "AAAA"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source *image.Content
		change func(*Options)
		want   string
		is     error
	}{
		"encrypted already":     {&encryptedOnce.Content, nil, "layer 1 (sha256:", errEncrypted},
		"encrypted by its name": {contentOf(t, annotated), nil, "enc.keys.jwe", errEncrypted},
		"unknown media type":    {contentOf(t, testImage(t, types.OCIManifestSchema1, "application/vnd.in-toto+json")), nil, "layer 0", errMediaType},
		"helm chart":            {contentOf(t, testImage(t, types.OCIManifestSchema1, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")), nil, "layer 0", errMediaType},
		"no such layer":         {contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Layers = []int{1} }, "layer 1 does not exist", nil},
		"no such layer from behind": {
			contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Layers = []int{-2} }, "layer -2 does not exist", nil,
		},
		"one layer twice":   {contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Layers = []int{0, -1} }, "named twice", nil},
		"no layers":         {contentOf(t, testImage(t, types.OCIManifestSchema1)), nil, "no layers", nil},
		"another platform":  {contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Platform = &v1.Platform{OS: "linux", Architecture: "s390x"} }, "linux/amd64", nil},
		"short key":         {contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Key.KEK = o.Key.KEK[:16] }, "want 32", nil},
		"key id of a guest": {contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), func(o *Options) { o.Key.ID = "/default/key/1" }, "key id", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			if c.change != nil {
				c.change(&o)
			}
			r, err := Encrypt(t.Context(), c.source, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %+v, %v, want an error with %q", r, err, c.want)
			}
			nothingLeft(t, o.TempDir)
		})
	}
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A layer that is encrypted may stay beside ones that get encrypted now.
func TestEncryptOneMoreLayer(t *testing.T) {
	o := options(t)
	o.Layers = []int{1}
	once := mustEncrypt(t, contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer, types.OCILayer)), o)
	o.Layers = []int{0}
	twice := mustEncrypt(t, &once.Content, o)
	for i, desc := range manifestOf(t, &twice.Content).Layers {
		if plain := decrypt(t, twice.Content.Image, desc); string(plain) != fmt.Sprintf("content of layer %d", i) {
			t.Errorf("layer %d: got %q", i, plain)
		}
	}
}

// lyingImage serves other bytes for its layers than it promises.
type lyingImage struct {
	v1.Image
	blob func() io.Reader
}

func (l lyingImage) LayerByDigest(v1.Hash) (v1.Layer, error) { return lyingLayer{blob: l.blob}, nil }

type lyingLayer struct {
	v1.Layer
	blob func() io.Reader
}

func (l lyingLayer) Compressed() (io.ReadCloser, error) { return io.NopCloser(l.blob()), nil }

func TestLyingSource(t *testing.T) {
	honest := testImage(t, types.OCIManifestSchema1, types.OCILayer, types.OCILayer)
	for name, blob := range map[string]string{
		"other bytes": "content of layer X", "short": "content", "empty": "", "long": "content of layer 0 and more",
	} {
		source := contentOf(t, honest)
		source.Image = lyingImage{Image: honest, blob: func() io.Reader { return strings.NewReader(blob) }}
		o := options(t)
		if _, err := Encrypt(t.Context(), source, o); err == nil || !strings.Contains(err.Error(), "layer 0") {
			t.Errorf("%s: got %v, want an error about layer 0", name, err)
		}
		nothingLeft(t, o.TempDir)
		// Also a layer that is only copied.
		o.Layers = []int{1}
		source.Image = lyingImage{Image: honest, blob: func() io.Reader { return strings.NewReader("content of layer 1") }}
		r := mustEncrypt(t, source, o)
		desc := manifestOf(t, &r.Content).Layers[0]
		layer, err := r.Content.Image.LayerByDigest(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		copied, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(copied); err == nil {
			t.Error("a copied layer with other bytes passed")
		}
	}
	source := contentOf(t, honest)
	source.Descriptor.Digest.Hex = strings.Repeat("a", 64)
	if _, err := Encrypt(t.Context(), source, options(t)); err == nil {
		t.Error("a manifest with another digest passed")
	}
}

// An embedded copy and download addresses of the plain layer do not survive.
func TestPlainCopiesAreDropped(t *testing.T) {
	plain := testImage(t, types.OCIManifestSchema1, types.OCILayer)
	m, err := plain.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	m.Layers[0].Data = []byte("content of layer 0")
	m.Layers[0].URLs = []string{"https://plain.example/layer"}
	img := &rewritten{Image: plain, manifest: m}
	r := mustEncrypt(t, contentOf(t, img), options(t))
	raw, err := r.Content.Image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString(m.Layers[0].Data))) || bytes.Contains(raw, []byte("plain.example")) {
		t.Errorf("got %s", raw)
	}
}

// rewritten is an image with another manifest.
type rewritten struct {
	v1.Image
	manifest *v1.Manifest
}

func (r *rewritten) RawManifest() ([]byte, error)    { return partial.RawManifest(r) }
func (r *rewritten) Manifest() (*v1.Manifest, error) { return r.manifest, nil }
func (r *rewritten) Digest() (v1.Hash, error)        { return partial.Digest(r) }
func (r *rewritten) Size() (int64, error)            { return partial.Size(r) }

func testIndex(t *testing.T, children ...mutate.IndexAddendum) v1.ImageIndex {
	t.Helper()
	return mutate.IndexMediaType(mutate.AppendManifests(empty.Index, children...), types.OCIImageIndex)
}

func platform(s string) *v1.Platform {
	p, err := v1.ParsePlatform(s)
	if err != nil {
		panic(err)
	}
	return p
}

func TestEncryptIndex(t *testing.T) {
	one, two := testImage(t, types.OCIManifestSchema1, types.OCILayer), testImage(t, types.OCIManifestSchema1, types.OCILayer, types.OCILayer)
	index := testIndex(t,
		mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: platform("linux/amd64"), Annotations: map[string]string{"kept": "yes"}}},
		mutate.IndexAddendum{Add: two, Descriptor: v1.Descriptor{Platform: platform("linux/arm64/v8")}},
	)
	index = mutate.Annotations(index, map[string]string{"of": "index"}).(v1.ImageIndex)
	r := mustEncrypt(t, contentOf(t, index), options(t))
	if r.Content.Image != nil || r.Content.Descriptor.MediaType != types.OCIImageIndex || len(r.Images) != 2 {
		t.Fatalf("got %+v", r)
	}
	m, err := r.Content.ReadIndex()
	if err != nil {
		t.Fatal(err)
	}
	if m.Annotations["of"] != "index" || m.Manifests[0].Annotations["kept"] != "yes" ||
		m.Manifests[0].Platform.String() != "linux/amd64" || m.Manifests[1].Platform.String() != "linux/arm64/v8" {
		t.Errorf("got %+v", m)
	}
	for _, desc := range m.Manifests {
		img, err := r.Content.Index.Image(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for i, layer := range manifestOf(t, &image.Content{Image: img, Descriptor: desc}).Layers {
			if plain := decrypt(t, img, layer); string(plain) != fmt.Sprintf("content of layer %d", i) {
				t.Errorf("%s layer %d: got %q", desc.Platform, i, plain)
			}
		}
	}
}

func TestEncryptOnePlatform(t *testing.T) {
	one, two := testImage(t, types.OCIManifestSchema1, types.OCILayer), testImage(t, types.OCIManifestSchema1, types.OCILayer, types.OCILayer)
	attestation := testImage(t, types.OCIManifestSchema1, "application/vnd.in-toto+json")
	index := testIndex(t,
		mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: platform("linux/amd64")}},
		mutate.IndexAddendum{Add: two, Descriptor: v1.Descriptor{Platform: platform("linux/arm/v6")}},
		mutate.IndexAddendum{Add: two, Descriptor: v1.Descriptor{Platform: platform("linux/arm/v7")}},
		mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{Platform: platform("unknown/unknown")}},
	)
	o := options(t)
	o.Platform = platform("linux/arm/v7")
	r := mustEncrypt(t, contentOf(t, index), o)
	if r.Content.Image == nil || len(manifestOf(t, &r.Content).Layers) != 2 || r.Images[0].Platform != "linux/arm/v7" {
		t.Errorf("got %+v", r)
	}
	for want, p := range map[string]*v1.Platform{
		"no image for linux/s390x": platform("linux/s390x"),
		"say which variant":        platform("linux/arm"),
		"--platform":               nil,
	} {
		o := options(t)
		o.Platform = p
		if _, err := Encrypt(t.Context(), contentOf(t, index), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", p, err, want)
		}
		nothingLeft(t, o.TempDir)
	}
	nested := testIndex(t, mutate.IndexAddendum{Add: testIndex(t), Descriptor: v1.Descriptor{}})
	if _, err := Encrypt(t.Context(), contentOf(t, nested), options(t)); err == nil {
		t.Error("an index in an index: want an error")
	}
}

// zeros is a blob of n zero bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A layer of 96 MiB passes through a few MiB of memory.
func TestLayersAreStreamed(t *testing.T) {
	const size = 96 << 20
	hash, _, err := v1.SHA256(zeros(size))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	dir := t.TempDir()
	desc := v1.Descriptor{Digest: hash, Size: size, MediaType: types.OCILayer}
	if _, err := encryptLayer(t.Context(), io.NopCloser(zeros(size)), desc, testKey(), dir); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	const allowed = 8 << 20
	if got := after.TotalAlloc - before.TotalAlloc; got > allowed {
		t.Errorf("%d bytes allocated for a layer of %d, want at most %d", got, size, allowed)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := options(t)
	if _, err := Encrypt(ctx, contentOf(t, testImage(t, types.OCIManifestSchema1, types.OCILayer)), o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	nothingLeft(t, o.TempDir)
}
