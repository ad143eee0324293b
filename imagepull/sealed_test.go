// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// plainSealer seals nothing: its devices are loop devices. It counts, and spoils on demand.
type plainSealer struct {
	failOpen bool
	mu       sync.Mutex // guards names: layers are unpacked at the same time
	names    []string
}

type plainSealed struct {
	*os.File
	file     string
	failOpen bool
	finished bool
}

var errSpoilt = errors.New("spoilt")

func (s *plainSealer) Seal(name string, data, tree *os.File) (Sealed, error) {
	s.mu.Lock()
	s.names = append(s.names, name)
	s.mu.Unlock()
	return &plainSealed{File: data, failOpen: s.failOpen && !strings.HasPrefix(name, "probe")}, nil
}

func (s *plainSealed) Finish(context.Context) error {
	s.finished = true
	return nil
}

func (s *plainSealed) Open(data, _ string) (string, func() error, error) {
	if s.failOpen || !s.finished {
		return "", nil, errSpoilt
	}
	d, err := AttachLoop(data)
	if err != nil {
		return "", nil, err
	}
	return d.Name(), d.Close, nil
}

// sealedPuller is a puller whose layers go through a sealer.
func sealedPuller(t *testing.T, r *registryFake, s Sealer) *Puller {
	t.Helper()
	erofsPuller(t, r, filepath.Join(t.TempDir(), "store")) // skips where the kernel lacks it
	p, err := New(Config{Store: filepath.Join(t.TempDir(), "store"), Policy: acceptAnything(t), Insecure: []string{r.host()}, Sealer: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestSealedStore: every layer is written through the sealer and mounted from its device, once, and nothing is left of one
// that the sealer does not open.
func TestSealedStore(t *testing.T) {
	r := newRegistryFake(t)
	sparse := gzipLayer(t, tarOf(t, entry{name: "d/", typ: tar.TypeDir}, entry{name: "d/f", body: strings.Repeat("f", 200_000)}))
	r.put(t, "v1", testImage{layers: []testLayer{gzipLayer(t, someTar(t)), sparse}})
	s := &plainSealer{}
	p := sealedPuller(t, r, s)
	img := mustPull(t, p, r.ref("v1"))
	target := mountImage(t, img)
	wantFile(t, filepath.Join(target, "etc/motd"), "hello\n")
	wantFile(t, filepath.Join(target, "d/f"), strings.Repeat("f", 200_000))
	mustPull(t, p, r.ref("v1"))
	if len(s.names) != 3 { // the probe's too
		t.Errorf("sealed %q", s.names)
	}

	spoilt := sealedPuller(t, r, &plainSealer{failOpen: true})
	mustFail(t, spoilt, r.ref("v1"), errSpoilt)
	wantEmpty(t, spoilt)
}

// TestSealedNeedsImages: what cannot be sealed is no store.
func TestSealedNeedsImages(t *testing.T) {
	if _, err := New(Config{Store: t.TempDir(), Form: FormDirectories, Sealer: &plainSealer{}}); err == nil {
		t.Error("directories were sealed")
	}
	if _, err := New(Config{Store: t.TempDir(), Sealer: noSealer{}}); !errors.Is(err, errSpoilt) {
		t.Errorf("a sealer that does not work: got %v", err)
	}
}

type noSealer struct{}

func (noSealer) Seal(string, *os.File, *os.File) (Sealed, error) { return nil, errSpoilt }
