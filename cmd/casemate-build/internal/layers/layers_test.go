// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/verity"
	"github.com/casemate/casemate/verity/layer"
)

// archive is a tar of files by their names; "/" at the end makes a directory.
func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}
		content := strings.Repeat("content of "+name+"\n", 500)
		if !strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// part is one layer of a test's image: what is stored and what it is said to hold.
type part struct {
	mediaType types.MediaType
	blob      []byte
	archive   []byte
}

func sum(b []byte) v1.Hash {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return h
}

// content is an image of these layers; change changes manifest and config before they are encoded.
func content(t *testing.T, change func(*v1.Manifest, *v1.ConfigFile), parts ...part) *image.Content {
	t.Helper()
	m := &v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2, Config: v1.Descriptor{MediaType: types.DockerConfigJSON}}
	c := &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	built := &image.Built{Layers: map[v1.Hash]partial.CompressedLayer{}}
	for _, p := range parts {
		desc := v1.Descriptor{MediaType: p.mediaType, Digest: sum(p.blob), Size: int64(len(p.blob)), Annotations: map[string]string{"kept": "yes"}}
		m.Layers = append(m.Layers, desc)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, sum(p.archive))
		built.Layers[desc.Digest] = &image.BuiltLayer{Desc: desc, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(p.blob)), nil
		}}
	}
	change(m, c)
	built.Config = marshal(t, c)
	m.Config.Digest, m.Config.Size = sum(built.Config), int64(len(built.Config))
	built.Manifest = marshal(t, m)
	img, err := partial.CompressedToImage(built)
	if err != nil {
		t.Fatal(err)
	}
	return &image.Content{Descriptor: v1.Descriptor{MediaType: m.MediaType, Digest: sum(built.Manifest), Size: int64(len(built.Manifest))}, Image: img}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func asItIs(*v1.Manifest, *v1.ConfigFile) {}

// TestMake: each layer's device is bound by what the new manifest says of it, and all else stays.
func TestMake(t *testing.T) {
	first, second, third := archive(t, "./", "etc/", "etc/motd"), archive(t, "usr/share/doc", "etc/"), archive(t, "new", ".wh..wh..opq")
	source := content(t, asItIs,
		part{types.DockerLayer, gzipped(t, first), first},
		part{types.OCILayerZStd, zstandard(t, second), second},
		part{types.DockerLayer, gzipped(t, first), first},
		part{types.OCIUncompressedLayer, third, third},
	)
	dir := filepath.Join(t.TempDir(), "devices")
	seen := 0
	made, err := Make(t.Context(), source, dir, func(Layer) { seen++ })
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ReadManifest(made.Content.Image, made.Content.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if seen != 4 || len(m.Layers) != 4 || m.MediaType != types.OCIManifestSchema1 || m.Layers[0].MediaType != types.OCILayer {
		t.Fatalf("%d reports, manifest %+v", seen, m)
	}
	want := []struct {
		implied []string
		opaque  bool
		archive []byte
	}{{nil, false, first}, {[]string{".", "usr", "usr/share"}, false, second}, {nil, false, first}, {[]string{"."}, true, third}}
	for i, l := range m.Layers {
		b, err := layer.Parse(l.Annotations)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(b.Implied, want[i].implied) || b.Opaque != want[i].opaque || l.Annotations["kept"] != "yes" {
			t.Errorf("layer %d: got %q, opaque %v, %q", i, b.Implied, b.Opaque, l.Annotations)
		}
		device, err := os.ReadFile(made.Layers[i].File)
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(device)
		if err := verity.CheckOneDevice(r, uint64(len(device)), b.Pin); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
		if err := verity.Check(t.Context(), r, r, b.Pin); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
		if int64(len(device)) != made.Layers[i].Size || len(device)%4096 != 0 || !bytes.Contains(device, want[i].archive) {
			t.Errorf("layer %d: %d bytes, want %d with the archive", i, len(device), made.Layers[i].Size)
		}
		if hex.EncodeToString(b.Pin.Salt) != sum(want[i].archive).Hex {
			t.Errorf("layer %d: salt %x", i, b.Pin.Salt)
		}
	}
	if made.Layers[0].File != made.Layers[2].File || made.Layers[0].File == made.Layers[1].File {
		t.Errorf("files: %+v", made.Layers)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 3 {
		t.Errorf("%d files, %v: want 3", len(files), err)
	}
	// Once more, elsewhere: the same bytes.
	again, err := Make(t.Context(), source, t.TempDir(), func(Layer) {})
	if err != nil || again.Content.Descriptor.Digest != made.Content.Descriptor.Digest {
		t.Fatalf("got %+v, %v", again, err)
	}
	for i := range again.Layers {
		a, errA := os.ReadFile(made.Layers[i].File)
		b, errB := os.ReadFile(again.Layers[i].File)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("layer %d differs the second time: %v, %v", i, errA, errB)
		}
	}
}

// TestMakeRefuses: a device is made of nothing but the layer that the source's digests promise, and none is left over.
func TestMakeRefuses(t *testing.T) {
	good := archive(t, "a")
	packed := gzipped(t, good)
	gz := func(blob, archive []byte) part { return part{types.OCILayer, blob, archive} }
	for name, tt := range map[string]struct {
		change func(*v1.Manifest, *v1.ConfigFile)
		parts  []part
		want   string
	}{
		"no layers":               {asItIs, nil, "no layers"},
		"encrypted":               {asItIs, []part{{types.OCILayer + "+encrypted", packed, good}}, "is encrypted"},
		"unknown type":            {asItIs, []part{{"text/plain", packed, good}}, "unknown media type"},
		"another DiffID":          {asItIs, []part{gz(packed, []byte("x"))}, "and the config says"},
		"no DiffID":               {func(_ *v1.Manifest, c *v1.ConfigFile) { c.RootFS.DiffIDs = nil }, []part{gz(packed, good)}, "0 diff_ids, want 1"},
		"a longer blob":           {asItIs, []part{gz(append(bytes.Clone(packed), 0), good)}, ""},
		"a shorter blob":          {asItIs, []part{gz(packed[:len(packed)-1], good)}, ""},
		"another blob":            {func(m *v1.Manifest, _ *v1.ConfigFile) { m.Layers[0].Size++ }, []part{gz(packed, good)}, ""},
		"no archive":              {asItIs, []part{gz(gzipped(t, []byte("x")), []byte("x"))}, "truncated"},
		"bytes behind an archive": {asItIs, []part{gz(gzipped(t, append(bytes.Clone(good), 1)), append(bytes.Clone(good), 1))}, "data after end"},
		"a name that escapes":     {asItIs, []part{gz(gzipped(t, archive(t, "../x")), archive(t, "../x"))}, "unsafe path"},
	} {
		dir := t.TempDir()
		_, err := Make(t.Context(), content(t, tt.change, tt.parts...), dir, func(Layer) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}
