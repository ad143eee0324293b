// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/casemate/casemate/imagepull/trust"
)

// TestResolve: documents are fetched and judged as for a pull, and no layer is.
func TestResolve(t *testing.T) {
	r := newRegistryFake(t)
	one, two := gzipLayer(t, someTar(t)), gzipLayer(t, tarOf(t, entry{name: "x", body: "x"}))
	one.annotations = map[string]string{"said": "so"}
	keys := &fakeKeys{}
	secret := two.encrypted(t, keys)
	r.put(t, "v1", testImage{layers: []testLayer{one, two, one, secret}, config: map[string]any{"Cmd": []string{"/x"}}})
	p := newTestPuller(t, r)
	got, err := p.Resolve(t.Context(), r.ref("v1"))
	if err != nil {
		t.Fatal(err)
	}
	if n := r.blobRequests(); n != 1 {
		t.Errorf("%d blobs were fetched, want the config alone: %q", n, r.requests)
	}
	if len(got.Layers) != 4 || got.Layers[0].Annotations["said"] != "so" || got.Layers[1].Annotations != nil ||
		got.Layers[0].Digest.String() != one.digest || got.Layers[1].DiffID.String() != two.diffID || got.Layers[1].Encrypted || !got.Layers[3].Encrypted {
		t.Errorf("got layers %+v", got.Layers)
	}
	if !slices.Equal(got.Config.Cmd, []string{"/x"}) || got.Reference != r.ref("v1") || got.Manifest != got.Digest || got.Admitted == "" {
		t.Errorf("got %+v", got)
	}
	wantEmpty(t, p)
}

// TestResolveRefuses: what refuses a pull refuses this.
func TestResolveRefuses(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{gzipLayer(t, someTar(t))}})
	r.put(t, "lies", testImage{layers: []testLayer{gzipLayer(t, someTar(t))}, spoil: func(_, config map[string]any) {
		config["rootfs"] = map[string]any{"type": "layers", "diff_ids": []string{}}
	}})
	denying := newTestPuller(t, r, func(c *Config) { c.Policy = policyOf(t, `{"default":[{"type":"reject"}]}`) })
	if _, err := denying.Resolve(t.Context(), r.ref("v1")); !errors.Is(err, trust.ErrDenied) {
		t.Errorf("a policy that rejects: got %v", err)
	}
	none := newTestPuller(t, r, func(c *Config) { c.Policy = nil })
	if _, err := none.Resolve(t.Context(), r.ref("v1")); !errors.Is(err, trust.ErrDenied) {
		t.Errorf("no policy: got %v", err)
	}
	p := newTestPuller(t, r)
	for reference, want := range map[string]error{r.ref("lies"): ErrManifest, r.ref("absent"): ErrNotFound, "": ErrReference} {
		if _, err := p.Resolve(t.Context(), reference); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", reference, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Resolve(ctx, r.ref("v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: got %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Resolve(t.Context(), r.ref("v1")); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
}

// TestResolvedImage: over another's trees the image is what a pull makes it, directories included that a layer did not
// describe, and layers that occur twice.
func TestResolvedImage(t *testing.T) {
	r := newRegistryFake(t)
	low := gzipLayer(t, tarOf(t, entry{name: "./", typ: tar.TypeDir, mode: 0o700}, entry{name: "usr/", typ: tar.TypeDir, mode: 0o711, uid: 7}, entry{name: "usr/a", body: "a"}))
	top := gzipLayer(t, tarOf(t, entry{name: "usr/b", body: "b"}))
	r.put(t, "v1", testImage{layers: []testLayer{low, top, low}})
	p := newTestPuller(t, r)
	pulled := mustPull(t, p, r.ref("v1"))
	resolved, err := p.Resolve(t.Context(), r.ref("v1"))
	if err != nil {
		t.Fatal(err)
	}
	byTop := map[bool]LayerTree{}
	for _, l := range pulled.layers {
		byTop[l.id.diffID.String() == top.diffID] = LayerTree{Dir: l.dir, Implied: l.implied, Opaque: l.opaque}
	}
	img, err := resolved.Image([]LayerTree{byTop[false], byTop[true], byTop[false]})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(img.Layers, pulled.Layers) || img.Manifest != pulled.Manifest {
		t.Errorf("got %q, want %q", img.Layers, pulled.Layers)
	}
	target := mountImage(t, img)
	wantFile(t, filepath.Join(target, "usr/a"), "a")
	wantFile(t, filepath.Join(target, "usr/b"), "b")
	// A layer that hides all below it is the last one.
	hiding := byTop[true]
	hiding.Opaque = true
	img, err = resolved.Image([]LayerTree{byTop[false], byTop[false], hiding})
	if err != nil || !slices.Equal(img.Layers, []string{hiding.Dir}) {
		t.Errorf("an opaque layer: got %+v, %v", img, err)
	}
	for name, trees := range map[string][]LayerTree{"none": nil, "too few": {byTop[true], byTop[false]}, "no directory": {byTop[true], {}, byTop[true]}} {
		if _, err := resolved.Image(trees); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
