// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// TestCloseResumes: whichever step of closing fails, the steps behind it are not taken, the layer below stays, and a
// second call goes on where the first stopped.
func TestCloseResumes(t *testing.T) {
	path := makeVolume(t, layouts["hmac"])
	for busy := 1; busy <= 2; busy++ {
		m := newMapper(t)
		m.busyAt = busy
		o, err := openVolume(t, m, newSecret(), layouts["hmac"], path)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); !errors.Is(err, unix.EBUSY) || len(m.live) != 3-busy {
			t.Errorf("step %d: %v with %q mapped", busy, err, m.live)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		m.checkClean(t)
	}
	var done []string
	fails := errors.New("in use")
	step := func(name string, err *error) func() error {
		return func() error {
			if *err != nil {
				return *err
			}
			done = append(done, name)
			return nil
		}
	}
	none := error(nil)
	o := &Mounted{closers: []func() error{step("device", &none), step("mount", &fails), step("bind", &none)}}
	if err := o.Close(); !errors.Is(err, fails) || !slices.Equal(done, []string{"bind"}) {
		t.Errorf("%v, %q", err, done)
	}
	// What only was not counted is undone.
	closed := false
	counted := &Mounted{closers: []func() error{func() error { closed = true; return nil }, func() error { return ErrNotCounted }}}
	if err := counted.Close(); !errors.Is(err, ErrNotCounted) || !closed {
		t.Errorf("%v, closed %v", err, closed)
	}
	if err := counted.Close(); err != nil {
		t.Error(err)
	}
	fails = nil
	if err := errors.Join(o.Close(), o.Close()); err != nil || !slices.Equal(done, []string{"bind", "mount", "device"}) {
		t.Errorf("%v, %q", err, done)
	}
}

// TestMountFails: a volume that maps and then does not mount is closed again, from above; no key stays.
func TestMountFails(t *testing.T) {
	c := layouts["hmac"]
	path := makeVolume(t, c)
	for name, mount := range map[string]func(Volumes, string) (*Mounted, error){
		"volume": func(v Volumes, point string) (*Mounted, error) {
			return MountVolume(t.Context(), v, c, "/dev/vdb", point)
		},
		"root": func(v Volumes, point string) (*Mounted, error) {
			return MountRoot(t.Context(), v, c, "/dev/vdb", point)
		},
	} {
		m, s := newMapper(t), newSecret()
		v := Volumes{Mapper: m, Keys: s, opener: opener(path)}
		// The mapping is a file here, which the kernel does not mount.
		if o, err := mount(v, filepath.Join(t.TempDir(), "point")); err == nil || o != nil || !strings.Contains(err.Error(), "mounting") {
			t.Errorf("%s: %v", name, err)
		}
		if want := []string{"create vol_dif", "create vol", "remove vol", "remove vol_dif"}; !slices.Equal(m.log, want) {
			t.Errorf("%s: %q, want %q", name, m.log, want)
		}
		m.checkClean(t)
		s.checkCleared(t)
	}
}

// TestVerityRootFails: the same for a root with a hash tree, at each of its steps.
func TestVerityRootFails(t *testing.T) {
	c := layouts["plain"]
	path := makeVolume(t, c)
	target := func(opened string) devmapper.Verity { return devmapper.Verity{DataDevice: opened, HashDevice: opened} }
	for _, tt := range []struct {
		name   string
		failAt int
		log    []string
	}{
		{"the volume", 1, nil},
		{"the tree", 2, []string{"create vol", "remove vol"}},
		{"the mount", 0, []string{"create vol", "create vol_verity", "remove vol_verity", "remove vol"}},
	} {
		m, s := newMapper(t), newSecret()
		m.failAt = tt.failAt
		v := Volumes{Mapper: m, Keys: s, opener: opener(path)}
		if o, err := MountVerityRoot(t.Context(), v, c, "/dev/vdb", filepath.Join(t.TempDir(), "root"), target); err == nil || o != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !slices.Equal(m.log, tt.log) {
			t.Errorf("%s: %q, want %q", tt.name, m.log, tt.log)
		}
		m.checkClean(t)
		s.checkCleared(t)
	}
}

// TestReplayMappingFails: a volume that was counted and then does not map stays openable; one that does not close is
// not counted before it does.
func TestReplayMappingFails(t *testing.T) {
	p := &party{}
	c := volumeConfig(luks.CipherAESXTS, luks.IntegrityNone)
	c.Replay = true
	path := filepath.Join(t.TempDir(), "disk")
	openDisk(t, path, deviceSize).Close()
	m := newMapper(t)
	v := Volumes{Mapper: m, Keys: newSecret(), Counter: p, opener: opener(path)}
	if err := v.Create(t.Context(), c, "/dev/vdb", Zeros{}); err != nil {
		t.Fatal(err)
	}
	m.failAt = m.creates + 1
	if _, err := v.Open(t.Context(), c, "/dev/vdb"); !errors.Is(err, errNoMapping) || p.last.Number != 2 {
		t.Errorf("%v, counted %d", err, p.last.Number)
	}
	m.checkClean(t)
	o, err := v.Open(t.Context(), c, "/dev/vdb")
	if err != nil || p.last.Number != 3 {
		t.Fatalf("locked out: %v, counted %d", err, p.last.Number)
	}
	m.busyAt = m.removes + 1
	key := o.replay.key
	if err := o.Close(); !errors.Is(err, unix.EBUSY) || p.last.Number != 3 || len(bytes.Trim(key, "\x00")) == 0 {
		t.Errorf("%v, counted %d", err, p.last.Number)
	}
	if err := o.Close(); err != nil || p.last.Number != 4 || len(bytes.Trim(key, "\x00")) > 0 {
		t.Errorf("%v, counted %d", err, p.last.Number)
	}
	m.checkClean(t)
	if err := v.Raise(t.Context(), c, "/dev/vdb"); err != nil || p.last.Number != 5 {
		t.Errorf("raising behind closing: %v, counted %d", err, p.last.Number)
	}
	// The making of a volume that fails is not counted, nor takes it anything from the one that has the name.
	other := filepath.Join(t.TempDir(), "other")
	openDisk(t, other, deviceSize).Close()
	w := v
	w.opener = opener(other)
	m.failAt = m.creates + 1
	if err := w.Create(t.Context(), c, "/dev/vdc", Zeros{}); !errors.Is(err, errNoMapping) || p.last.Number != 5 {
		t.Errorf("%v, counted %d", err, p.last.Number)
	}
	if o, err := v.Open(t.Context(), c, "/dev/vdb"); err != nil || o.Close() != nil {
		t.Errorf("the volume that has the name: %v", err)
	}
	m.checkClean(t)
}
