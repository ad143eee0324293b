// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What an earlier process left, whole layers included, proves nothing.
func TestStoreStartsEmpty(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, FormAuto, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"layers/sha256-x/etc", "staging/123/etc"} {
		if err := os.MkdirAll(s.path(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openStore(dir, FormAuto, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second opening: got error %v", err)
	}
	if _, err := os.Stat(s.path("layers/sha256-x")); err != nil {
		t.Errorf("the second opening removed a layer in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir, FormAuto, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, sub := range []string{"layers", "staging"} {
		if entries, err := os.ReadDir(s.path(sub)); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", sub, entries, err)
		}
	}
	if info, err := os.Stat(s.path("layers")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("layers: %v, %v", info.Mode(), err)
	}
}

// The second of two callers takes over when the first one's attempt fails.
func TestStoreTakesOver(t *testing.T) {
	s, err := openStore(t.TempDir(), FormDirectories, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := layerID{diffID: hashOf([]byte("x"))}
	started, fail := make(chan struct{}), make(chan struct{})
	go func() {
		_, err := s.acquire(t.Context(), id, func(string, *layer) error {
			close(started)
			<-fail
			return ErrTransport
		})
		if !errors.Is(err, ErrTransport) {
			t.Errorf("first caller: %v", err)
		}
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.acquire(ctx, id, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that waits no longer: %v", err)
	}
	done := make(chan *layer)
	go func() {
		l, err := s.acquire(t.Context(), id, func(dir string, _ *layer) error {
			return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)
		})
		if err != nil {
			t.Errorf("second caller: %v", err)
		}
		done <- l
	}()
	close(fail)
	l := <-done
	if _, err := os.Stat(filepath.Join(l.dir, "f")); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(s.path("staging")); len(entries) > 0 {
		t.Errorf("staging holds %v", entries)
	}
	if err := s.release([]*layer{l}, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) || s.has(id) {
		t.Errorf("the released layer is still there: %v", err)
	}
	if entries, _ := os.ReadDir(s.path("staging")); len(entries) > 0 {
		t.Errorf("staging holds %v", entries)
	}
}

func TestStoreInUse(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	lower, upper, work, target := dir+"/layers/l", dir+"/u", dir+"/w", dir+"/t"
	for _, d := range []string{lower, upper, work, target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := mountOverlay([]string{lower}, target, upper, work); err != nil {
		t.Skipf("mounting an overlay: %v", err)
	}
	if _, err := openStore(dir, FormAuto, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "still mounted at "+target) {
		t.Errorf("got error %v", err)
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(dir, FormAuto, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestManyLayersInUse: an image of as many layers as there may be fills a line that no usual reader of lines takes; what
// it and the mounts behind it use is not removed from below them.
func TestManyLayersInUse(t *testing.T) {
	const dir = "/run/casemate/scratch/images/layers"
	line := func(point, layers string) string {
		many := "36 35 0:33 / " + point + " rw - overlay overlay rw"
		for i := range maxLayers {
			many += fmt.Sprintf(",lowerdir+=%s/sha256-%064x/tree/of/some/longer/name/yet", layers, i)
		}
		return many + ",upperdir=/u,workdir=/w\n"
	}
	for name, mounts := range map[string]string{
		"its own": line("/point", dir), "behind another's": line("/elsewhere", "/other/layers") + line("/point", dir),
	} {
		if at := overlayOver("22 1 8:1 / / rw - ext4 /dev/vda rw\n"+mounts, dir); at != "/point" {
			t.Errorf("%s: found at %q", name, at)
		}
	}
	if at := overlayOver(line("/elsewhere", "/other/layers"), dir); at != "" {
		t.Errorf("found at %q", at)
	}
}

func TestPreflight(t *testing.T) {
	dir := t.TempDir()
	if err := preflight(dir, 1); err != nil {
		t.Error(err)
	}
	if err := preflight(dir, 1<<60); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got error %v, want %v", err, ErrNoSpace)
	}
	if err := preflight(filepath.Join(dir, "absent"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v", err, os.ErrNotExist)
	}
}
