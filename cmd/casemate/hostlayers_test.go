// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/verity"
	"github.com/casemate/casemate/verity/layer"
)

// layerDevice writes a device with the given content and tree, and returns what binds it.
func layerDevice(t *testing.T, content string) (string, layer.Binding) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "device"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte((content + strings.Repeat(".", 16))[:16]), 64*512/16)); err != nil {
		t.Fatal(err)
	}
	p := verity.Params{HashType: 1, Algorithm: "sha256", DataBlockSize: 512, HashBlockSize: 4096, DataBlocks: 64, HashOffset: 64*512 + 4096}
	root, err := verity.Build(t.Context(), f, f, p)
	if err != nil {
		t.Fatal(err)
	}
	superblock, err := verity.Superblock{Params: p}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(superblock, 64*512); err != nil {
		t.Fatal(err)
	}
	return f.Name(), layer.Binding{Pin: verity.Pin{Params: p, RootHash: root}}
}

// inspected opens files as the guest does.
func inspected(t *testing.T, paths ...string) []layerFile {
	t.Helper()
	var list []layerFile
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		d, err := inspectLayer(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	return list
}

// TestAssignLayers: each device is what the owner bound one layer to, whatever the host's order, and there is no other.
func TestAssignLayers(t *testing.T) {
	fileA, a := layerDevice(t, "a")
	fileB, b := layerDevice(t, "b")
	fileC, _ := layerDevice(t, "c")
	copied := func(change func([]byte) []byte) string {
		raw, err := os.ReadFile(fileB)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(file, change(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	same := copied(func(b []byte) []byte { return b })
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(fileA, link); err != nil {
		t.Fatal(err)
	}
	three := []layer.Binding{a, b, a} // the same layer twice
	for _, order := range [][]string{{fileA, fileB}, {fileB, fileA}} {
		got, err := assignLayers(three, inspected(t, order...))
		if err != nil || len(got) != 3 || got[0].path != fileA || got[1].path != fileB || got[2].path != fileA {
			t.Errorf("%q: got %+v, %v", order, got, err)
		}
	}
	for name, tt := range map[string]struct {
		devices []string
		want    error
	}{
		"no device":          {nil, errLayerCount},
		"one too few":        {[]string{fileA}, errLayerCount},
		"one too many":       {[]string{fileA, fileB, fileC}, errLayerCount},
		"a foreign one":      {[]string{fileA, fileC}, errLayerUnbound},
		"one twice":          {[]string{fileA, fileA}, errLayerTwice},
		"one by two names":   {[]string{fileA, link}, errLayerTwice},
		"one layer twice":    {[]string{fileB, same}, errLayerTwice},
		"a changed tree":     {[]string{fileA, copied(func(b []byte) []byte { b[64*512+4096] ^= 1; return b })}, errLayerUnbound},
		"a short one":        {[]string{fileA, copied(func(b []byte) []byte { return b[:len(b)-1] })}, verity.ErrTooSmall},
		"another superblock": {[]string{fileA, copied(func(b []byte) []byte { b[64*512+72] ^= 1; return b })}, verity.ErrSuperblock},
		"an empty one":       {[]string{fileA, copied(func([]byte) []byte { return nil })}, verity.ErrTooSmall},
	} {
		_, err := assignLayers(three, inspected(t, tt.devices...))
		if !errors.Is(err, tt.want) || layerRefusal(err) != tt.want {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := inspectLayer(f); err == nil {
		t.Error("a character device was taken")
	}
}

// TestBindLayers: what binds a layer is the judged manifest or measured configuration, and nothing where they differ.
func TestBindLayers(t *testing.T) {
	_, a := layerDevice(t, "a")
	_, b := layerDevice(t, "b")
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	one := func(annotations map[string]string, encrypted bool) []imagepull.ResolvedLayer {
		return []imagepull.ResolvedLayer{{Digest: digest, Annotations: annotations, Encrypted: encrypted}}
	}
	measured := func(b layer.Binding) map[string]map[string]string {
		return map[string]map[string]string{digest.String(): b.Annotations()}
	}
	hidden := a
	hidden.Opaque = true
	pinOnly := measured(a)
	delete(pinOnly[digest.String()], layer.RootHash)
	beside := maps.Clone(a.Annotations())
	beside["org.opencontainers.image.title"] = "layer"
	for name, tt := range map[string]struct {
		layers   []imagepull.ResolvedLayer
		measured map[string]map[string]string
		want     string // "" is bound to a
	}{
		"manifest":                      {one(a.Annotations(), false), nil, ""},
		"configuration":                 {one(nil, false), measured(a), ""},
		"both":                          {one(beside, false), measured(a), ""},
		"both, without the root hash":   {one(a.Annotations(), false), pinOnly, ""},
		"configuration for another":     {one(nil, false), map[string]map[string]string{"sha256:2": a.Annotations()}, "bound to no device"},
		"neither":                       {one(nil, false), nil, "bound to no device"},
		"a root hash alone":             {one(map[string]string{layer.RootHash: strings.Repeat("0", 64)}, false), nil, "bound to no device"},
		"they differ":                   {one(b.Annotations(), false), measured(a), "different devices"},
		"they differ in what is hidden": {one(hidden.Annotations(), false), measured(a), "different devices"},
		"an encrypted layer":            {one(a.Annotations(), true), nil, "encrypted layer"},
	} {
		got, err := bindLayers(tt.layers, tt.measured)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", name, err, tt.want)
			}
			continue
		}
		if err != nil || len(got) != 1 || !bytes.Equal(got[0].Pin.RootHash, a.Pin.RootHash) || got[0].Opaque {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestCheckErofs: what a layer's device holds is looked at before the kernel mounts it.
func TestCheckErofs(t *testing.T) {
	for name, tt := range map[string]struct {
		content []byte
		want    error
	}{
		"erofs":    {append(make([]byte, erofsOffset), 0xe2, 0xe1, 0xf5, 0xe0), nil},
		"ext4":     {append(make([]byte, erofsOffset+56), 0x53, 0xef), errNotErofs},
		"squashfs": {append([]byte("hsqs"), make([]byte, 4096)...), errNotErofs},
	} {
		file := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(file, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkErofs(file); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if err := checkErofs(os.DevNull); err == nil {
		t.Error("nothing was taken for a file system")
	}
}
