// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
	"github.com/casemate/casemate/verity"
)

// userSpace is the store's sealer with a check of every block in place of a mapping.
type userSpace struct {
	storeSealer
	t      *testing.T
	opened *int
}

type userSpaceImage struct {
	*sealedImage
	userSpace
}

func (u userSpace) Seal(name string, data, tree *os.File) (imagepull.Sealed, error) {
	s, err := u.storeSealer.Seal(name, data, tree)
	if err != nil {
		return nil, err
	}
	return &userSpaceImage{s.(*sealedImage), u}, nil
}

func (s *userSpaceImage) Open(data, tree string) (string, func() error, error) {
	d, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	defer d.Close()
	h, err := os.Open(tree)
	if err != nil {
		return "", nil, err
	}
	defer h.Close()
	if err := verity.Check(s.t.Context(), d, h, s.pin); err != nil {
		return "", nil, err
	}
	*s.opened++
	loop, err := imagepull.AttachLoop(data)
	if err != nil {
		return "", nil, err
	}
	return loop.Name(), loop.Close, nil
}

// TestSealedNames: the data hub and the declared containers each have a store of their own in one process, and may hold the
// same layer: its mappings have different names.
func TestSealedNames(t *testing.T) {
	m := testMachine(config.Measured{})
	names := map[string]bool{}
	for range 2 {
		sealer := m.storeSealer()
		s, err := sealer.Seal("sha256-0123456789abcdef0123", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		names[s.(*sealedImage).name] = true
	}
	if len(names) != 2 {
		t.Errorf("two mappings are named %v", names)
	}
}

// TestSealedPull: the tree that is made while a layer is unpacked is the one of the image that is mounted then.
func TestSealedPull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting layers needs root")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, size := range map[string]int{"small": 10, "large": 3 << 20, "empty": 0} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	policy, err := trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	c := imagepull.Config{Store: filepath.Join(t.TempDir(), "store"), Policy: policy}
	c.Platform.OS, c.Platform.Architecture = "linux", "amd64"
	opened := 0
	c.Sealer = userSpace{storeSealer{new(atomic.Uint64)}, t, &opened}
	p, err := imagepull.New(c)
	if err != nil {
		t.Skipf("this kernel mounts no erofs images from loop devices: %v", err)
	}
	defer p.Close()
	pulled, err := p.Pull(t.Context(), "oci:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	large, err := os.ReadFile(filepath.Join(pulled.Layers[0], "large"))
	if err != nil || len(large) != 3<<20 || opened != 2 {
		t.Errorf("%d bytes, %v; %d images opened, want the probe's and the layer's", len(large), err, opened)
	}
}
