// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/luks"
)

// parties are the counters of several volumes.
type parties map[string]*party

func (p parties) Last(ctx context.Context, volume string) (Generation, bool, error) {
	if p[volume] == nil {
		return Generation{}, false, nil
	}
	return p[volume].Last(ctx, volume)
}

func (p parties) Raise(ctx context.Context, volume string, from, to Generation) error {
	if p[volume] == nil {
		p[volume] = &party{}
	}
	return p[volume].Raise(ctx, "vol", from, to)
}

// countedMounts serves requests for the links to one volume with a counter.
func countedMounts(t *testing.T) (s *SecureMounts, counters parties, request SecureMount, image string) {
	t.Helper()
	c := volumeConfig(luks.CipherAESXTS, luks.IntegrityNone)
	c.Replay = true
	image = filepath.Join(t.TempDir(), "disk")
	counters = parties{}
	v := Volumes{Mapper: newMapper(t), Keys: newSecret(), Counter: counters, opener: opener(image)}
	if err := v.create(t.Context(), c, "/dev/vdb", openDisk(t, image, deviceSize), Zeros{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s = &SecureMounts{Volumes: v, Measured: []VolumeConfig{c}, Below: []string{dir}}
	return s, counters, SecureMount{DevicePath: "/dev/vdb", Encrypted: true, Key: c.Key, MountPoint: filepath.Join(dir, "m")}, image
}

// TestMapperNameChoosesNoCounter attacks the counter of a volume by the name of its mapping, which is the host's: an
// older image must not open because another volume's counter is one that its owner lets begin anew.
func TestMapperNameChoosesNoCounter(t *testing.T) {
	s, counters, request, image := countedMounts(t)
	old, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	request.Name = "other"
	if err := s.Mount(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if live := s.Volumes.Mapper.(*mapper).live; !slices.Equal(live, []string{"other"}) {
		t.Errorf("mapped %q", live)
	}
	if err := s.CloseAll(); err != nil {
		t.Fatal(err)
	}
	if len(counters) != 1 || counters["vol"].last.Number != 3 {
		t.Errorf("counted %v", counters)
	}
	counters["other"] = &party{last: Generation{Number: 1, ID: [16]byte{1}}, reset: true}
	if err := os.WriteFile(image, old, 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Mount(t.Context(), request)
	if e, ok := errors.AsType[*ErrOldImage](err); !ok || e.Last != 3 {
		t.Errorf("an older image: %v", err)
	}
}

// TestUncountedMountIsGone attacks the answer to a request that comes once more: a volume that was closed behind its
// user's back, with a relying party that the host keeps from answering or with a part of it still in use, is not mounted,
// and no caller may take the bare directory for it.
func TestUncountedMountIsGone(t *testing.T) {
	busy := unix.EBUSY
	for name, closing := range map[string]error{"not counted": ErrNotCounted, "in part": busy} {
		request := SecureMount{FileSystem: true, Encrypted: true, Key: "kbs:///a/b/c", MountPoint: t.TempDir()}
		closers := 0
		o := &Mounted{Point: request.MountPoint, Device: filepath.Join(t.TempDir(), "none"), request: request, closers: []func() error{
			func() error { closers++; return closing },
		}}
		s := SecureMounts{open: []*Mounted{o}}
		err := s.Mount(t.Context(), request)
		switch {
		case err == nil:
			t.Errorf("%s: nothing is mounted, and the request was done", name)
		case closing == ErrNotCounted && (!errors.Is(err, ErrOutside) || len(s.open) > 0): // which comes behind
			t.Errorf("%s: %v, %d open", name, err, len(s.open))
		case closing == busy && len(s.open) != 1:
			t.Errorf("%s: %v, %d open", name, err, len(s.open))
		}
		if closers == 0 {
			t.Errorf("%s: not closed", name)
		}
	}
}

// TestUncountedIsClosed: a volume that is closed and not counted is told about, once, and forgotten.
func TestUncountedIsClosed(t *testing.T) {
	dir := t.TempDir()
	for name, closing := range map[string]func(*SecureMounts) error{
		"one": func(s *SecureMounts) error { return s.Close(dir) }, "all": (*SecureMounts).CloseAll,
	} {
		s := SecureMounts{open: []*Mounted{{Point: dir, closers: []func() error{func() error { return ErrNotCounted }}}}}
		if err := closing(&s); !errors.Is(err, ErrNotCounted) || len(s.open) > 0 {
			t.Errorf("%s: %v, %d open", name, err, len(s.open))
		}
	}
}

// TestFailedMountIsUndoneLater: what a request that failed could not undo is not lost.
func TestFailedMountIsUndoneLater(t *testing.T) {
	s, _, request, _ := countedMounts(t)
	m := s.Volumes.Mapper.(*mapper)
	m.busyAt = m.removes + 1
	if err := os.WriteFile(request.MountPoint, nil, 0o600); err != nil { // in the link's way
		t.Fatal(err)
	}
	if err := s.Mount(t.Context(), request); !errors.Is(err, unix.EEXIST) || !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	if err := s.CloseAll(); err != nil {
		t.Error(err)
	}
	m.checkClean(t)
}

// TestUndoBeneath attacks the undoing of a link by a path in which a container has put a link since.
func TestUndoBeneath(t *testing.T) {
	s, _, request, _ := countedMounts(t)
	below, outside := s.Below[0], t.TempDir()
	request.MountPoint = filepath.Join(below, "container", "m")
	if err := s.Mount(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(outside, "m")
	err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Rename(filepath.Dir(request.MountPoint), filepath.Join(below, "moved")),
		os.Symlink(outside, filepath.Dir(request.MountPoint)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CloseAll(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
