// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// layerID is what an unpacked layer is known by. A layer that came encrypted has
// a mark, so that it is found again only by whoever has unwrapped its key.
type layerID struct {
	diffID v1.Hash
	mark   [sha256.Size]byte // zero for a layer that came in the clear
}

// layer is an unpacked and verified layer.
type layer struct {
	id      layerID
	home    string   // its directory in the store
	dir     string   // its tree: home, or an image mounted in it
	implied []string // directories that its archive did not describe
	opaque  bool     // its root hides every layer below

	holders int // images and running pulls; guarded by store.mu
}

// store keeps unpacked layers in DIR/layers and builds them in DIR/staging;
// DIR/empty stands for an image without layers. What
// is in it is known from memory alone: the directories of an earlier process
// prove nothing and are removed when the store opens.
type store struct {
	dir     string
	keeper  keeper
	lock    *os.File
	markKey [32]byte // makes marks useless outside this process

	mu       sync.Mutex // guards the maps and every layer's holders
	layers   map[layerID]*layer
	building map[layerID]chan struct{} // closed when the attempt has ended
}

func openStore(dir string, form Form, sealer Sealer, log *slog.Logger) (*store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	s := &store{dir: dir, lock: lock, layers: map[layerID]*layer{}, building: map[layerID]chan struct{}{}}
	err = s.claim()
	if err == nil {
		s.keeper, err = newKeeper(form, sealer, s.path("staging"), log)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("opening image store %s: %w", dir, err)
	}
	return s, nil
}

// claim takes the store for this process and empties it.
func (s *store) claim() error {
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	if at, err := mountedFrom(s.path("layers")); err != nil {
		return err
	} else if at != "" {
		return fmt.Errorf("its layers are still mounted at %s", at)
	}
	homes, err := filepath.Glob(s.path("layers", "*"))
	if err != nil {
		return err
	}
	for _, home := range homes {
		if err := (images{}).close(home); err != nil {
			return err
		}
	}
	rand.Read(s.markKey[:])
	for _, sub := range []string{"staging", "layers", "empty"} {
		if err := os.RemoveAll(s.path(sub)); err != nil {
			return err
		}
		if err := os.Mkdir(s.path(sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// mountedFrom returns the mount point of an overlay that has a layer below dir,
// "" when there is none.
func mountedFrom(dir string) (string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	return overlayOver(string(raw), dir), nil
}

// overlayOver looks for it in the lines of a mountinfo, which may be long: an overlay's names all its layers.
func overlayOver(mountinfo, dir string) string {
	for line := range strings.Lines(mountinfo) {
		mount, super, ok := strings.Cut(line, " - overlay ")
		if fields := strings.Fields(mount); ok && len(fields) > 4 && strings.Contains(super, dir+"/") {
			return fields[4]
		}
	}
	return ""
}

// mark ties a layer to the key and nonce that opened it.
func (s *store) mark(k *layerKey) [sha256.Size]byte {
	m := hmac.New(sha256.New, s.markKey[:])
	m.Write(k.key)
	m.Write(k.nonce[:])
	return [sha256.Size]byte(m.Sum(nil))
}

// has reports whether acquire would return at once.
func (s *store) has(id layerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layers[id] != nil
}

// acquire returns the layer, held for the caller. When it is absent, build makes
// it in an empty directory; callers that want the same layer meanwhile wait, and
// one of them takes over if the attempt fails. The directory gets its name under
// layers only after build has returned nil.
func (s *store) acquire(ctx context.Context, id layerID, build func(dir string, l *layer) error) (*layer, error) {
	for {
		s.mu.Lock()
		if l := s.layers[id]; l != nil {
			l.holders++
			s.mu.Unlock()
			return l, nil
		}
		running, ok := s.building[id]
		if !ok {
			done := make(chan struct{})
			s.building[id] = done
			s.mu.Unlock()
			return s.build(id, done, build)
		}
		s.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *store) build(id layerID, done chan struct{}, build func(string, *layer) error) (*layer, error) {
	l := &layer{id: id, home: s.path("layers", id.dirName()), holders: 1}
	err := s.fill(l, build)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.building, id)
	close(done)
	if err != nil {
		return nil, err
	}
	s.layers[id] = l
	return l, nil
}

// fill makes the layer's directory under a name that nothing looks for, then
// gives it its own.
func (s *store) fill(l *layer, build func(string, *layer) error) error {
	staging, err := os.MkdirTemp(s.path("staging"), "")
	if err != nil {
		return fmt.Errorf("staging a layer: %w", err)
	}
	// The layer's root has this mode unless the archive says otherwise.
	if err = os.Chmod(staging, 0o755); err == nil { //nolint:gosec // below a 0700 directory
		err = build(staging, l)
	}
	if err == nil {
		err = os.Rename(staging, l.home)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	if l.dir, err = s.keeper.open(l.home); err != nil {
		return errors.Join(err, os.RemoveAll(l.home))
	}
	return nil
}

func (id layerID) dirName() string {
	name := id.diffID.Algorithm + "-" + id.diffID.Hex
	if id.mark != ([sha256.Size]byte{}) {
		name += "." + hex.EncodeToString(id.mark[:8])
	}
	return name
}

// release lets go of layers; with discard, those that nobody holds are removed.
func (s *store) release(layers []*layer, discard bool) error {
	var errs []error
	for _, l := range layers {
		doomed, err := s.drop(l, discard)
		errs = append(errs, err)
		if doomed != "" {
			errs = append(errs, os.RemoveAll(doomed))
		}
	}
	return errors.Join(errs...)
}

// drop takes an unwanted layer's name away at once, so that its removal, which
// may take long, blocks nobody.
func (s *store) drop(l *layer, discard bool) (doomed string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.holders--
	if l.holders > 0 || !discard {
		return "", nil
	}
	if err := s.keeper.close(l.home); err != nil {
		return "", err
	}
	delete(s.layers, l.id)
	if doomed, err = os.MkdirTemp(s.path("staging"), ""); err != nil {
		return l.home, nil
	}
	return doomed, os.Rename(l.home, filepath.Join(doomed, "layer"))
}

// Close gives the store up; its layers stay for whoever mounted them.
func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, s.keeper.close(l.home))
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
