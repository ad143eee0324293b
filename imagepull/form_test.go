// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// formImage has what the forms keep in different ways.
func formImage(t *testing.T) testImage {
	big := strings.Repeat("0123456789abcdef", 100_000)
	return testImage{layers: []testLayer{
		gzipLayer(t, tarOf(t, entry{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 3}, entry{name: "keep", body: big}, entry{name: "gone", body: "x"},
			entry{name: "d/", typ: tar.TypeDir, mode: 0o750, uid: 9}, entry{name: "d/old", body: "x"}, entry{name: "e/", typ: tar.TypeDir}, entry{name: "e/x", body: "lower"})),
		zstdLayer(t, tarOf(t, entry{name: ".wh.gone"}, entry{name: "d/.wh..wh..opq"}, entry{name: "d/new", body: "new", mode: 0o4755},
			entry{name: "hard", typ: tar.TypeLink, link: "d/new"}, entry{name: "soft", typ: tar.TypeSymlink, link: "d/new"},
			entry{name: "null", typ: tar.TypeChar, mode: 0o666, major: 1, minor: 3}, entry{name: "e/.wh.x"})),
		plainLayer(tarOf(t, entry{name: "d/top", body: "top"})),
	}}
}

// describe lists a mounted tree: type, mode, owner, size, time, target or content.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		what := fmt.Sprintf("%o %d:%d %d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d links %.20q of %d", st.Nlink, content, len(content))
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			what += " " + to
		}
		rel, _ := filepath.Rel(root, path)
		got[rel] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// erofsPuller is a Puller that keeps images, where the kernel mounts them.
func erofsPuller(t *testing.T, r *registryFake, store string) *Puller {
	t.Helper()
	needRoot(t)
	if _, err := probeImages(t.TempDir()); err != nil {
		t.Skipf("this kernel mounts no erofs images: %v", err)
	}
	return newTestPuller(t, r, func(c *Config) { c.Form, c.Store = FormErofs, store })
}

// mounts counts what is mounted below dir.
func mounts(t *testing.T, dir string) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			n++
		}
	}
	return n
}

// Both forms give a container the same tree, on a disk and in memory, where the
// kernel takes a loop device.
func TestFormsAgree(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", formImage(t))
	memory, _, _ := overlayDirs(t)
	want := describe(t, mountImage(t, mustPull(t, newTestPuller(t, r, func(c *Config) { c.Form = FormDirectories }), r.ref("v1"))))
	if len(want) != 9 {
		t.Errorf("the tree has %d entries, want 9: %v", len(want), want)
	}
	for name, place := range map[string]struct {
		store string
		loop  bool
	}{"disk": {t.TempDir(), false}, "memory": {memory, true}} {
		t.Run(name, func(t *testing.T) {
			p := erofsPuller(t, r, place.store)
			if k, ok := p.store.keeper.(images); !ok || place.loop && !k.loop {
				t.Errorf("the store keeps %+v, want images, by loop device %t", p.store.keeper, place.loop)
			}
			got := describe(t, mountImage(t, mustPull(t, p, r.ref("v1"))))
			for path, w := range want {
				if got[path] != w {
					t.Errorf("%s\n got %s\nwant %s", path, got[path], w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("got %d entries, want %d", len(got), len(want))
			}
		})
	}
}

// An image's mounts go with it. A container that has them stays whole, whether the
// image is removed or the Puller is closed under it.
func TestErofsMountsGo(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", formImage(t))
	r.put(t, "v2", testImage{layers: formImage(t).layers[:1]})
	store := t.TempDir()
	p := erofsPuller(t, r, store)
	first, second := mustPull(t, p, r.ref("v1")), mustPull(t, p, r.ref("v2"))
	if n := mounts(t, store); n != 3 {
		t.Errorf("%d mounts for 3 layers", n)
	}
	target := mountImage(t, first)
	if err := p.Remove(first); err != nil {
		t.Fatal(err)
	}
	wantFile(t, target+"/d/top", "top")
	if n := mounts(t, store); n != 1 {
		t.Errorf("%d mounts for the layer that is left", n)
	}
	again := mountImage(t, second)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantFile(t, again+"/e/x", "lower")
	if n := mounts(t, store); n != 0 {
		t.Errorf("%d mounts of a closed store", n)
	}
}

// What runs in a layer runs as from a directory: programs, and mapped.
func TestErofsRuns(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static: %v", err)
	}
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{plainLayer(tarOf(t, entry{name: "busybox", body: string(busybox), mode: 0o755}))}})
	target := mountImage(t, mustPull(t, erofsPuller(t, r, t.TempDir()), r.ref("v1")))
	if out, err := exec.CommandContext(t.Context(), target+"/busybox", "echo", "runs").Output(); err != nil || string(out) != "runs\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// The mounts of a process that was killed are taken away before anything is
// removed, and its layers prove nothing.
func TestErofsStaleMounts(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", formImage(t))
	store := t.TempDir()
	p := erofsPuller(t, r, store)
	img := mustPull(t, p, r.ref("v1"))
	if err := unix.Flock(int(p.store.lock.Fd()), unix.LOCK_UN); err != nil { // as the kernel does for a killed process
		t.Fatal(err)
	}
	s, err := openStore(store, FormErofs, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := mounts(t, store); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	if _, err := os.Stat(filepath.Dir(img.Layers[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a layer of the killed process is left: %v", err)
	}
}

// A loop device frees itself when the mount goes.
func TestErofsLoopGoes(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", formImage(t))
	memory, _, _ := overlayDirs(t)
	p := erofsPuller(t, r, memory+"/store")
	mustPull(t, p, r.ref("v1"))
	if n := loops(t, memory); n != 3 {
		t.Errorf("%d loop devices for 3 layers", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); loops(t, memory) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d loop devices are left", loops(t, memory))
		}
	}
}

// loops counts the loop devices whose files are below dir.
func loops(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(raw), dir+"/") {
			n++
		}
	}
	return n
}

// Where images cannot be kept, whoever asked for them is told, and the automatic
// choice is in the log with its reason.
func TestFormChoice(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	absent := filepath.Join(t.TempDir(), "absent")
	if _, err := newKeeper(FormErofs, nil, absent, logger); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v", err, os.ErrNotExist)
	}
	k, err := newKeeper(FormAuto, nil, absent, logger)
	if err != nil || k != (directories{}) {
		t.Errorf("got %+v, %v, want directories", k, err)
	}
	if !strings.Contains(log.String(), "as directories") || !strings.Contains(log.String(), "no such file") {
		t.Errorf("the log says %q", log.String())
	}
	if k, err := newKeeper(FormDirectories, nil, absent, logger); err != nil || k != (directories{}) {
		t.Errorf("got %+v, %v, want directories", k, err)
	}
}

// A probe that reads back otherwise than it was written speaks against images.
func TestProbeReads(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := checkProbe(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: got error %v", err)
	}
	if err := os.WriteFile(dir+"/file", []byte("Probe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkProbe(dir); err == nil || !strings.Contains(err.Error(), "want \"probe\"") {
		t.Errorf("other content: got error %v", err)
	}
	if err := errors.Join(os.WriteFile(dir+"/file", probeContent, 0o600), os.Mkdir(dir+"/dir", 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := checkProbe(dir); !errors.Is(err, unix.ENODATA) {
		t.Errorf("no attributes: got error %v, want %v", err, unix.ENODATA)
	}
}

// A filesystem that fills up while two layers are written, each of which would
// fit, ends the pull with ErrNoSpace: no file, mount or loop device is left.
func TestErofsNoSpace(t *testing.T) {
	small := t.TempDir()
	needRoot(t)
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{
		gzipLayer(t, tarOf(t, entry{name: "a", body: strings.Repeat("a", 4<<20)})),
		gzipLayer(t, tarOf(t, entry{name: "b", body: strings.Repeat("b", 4<<20)})),
	}})
	p := erofsPuller(t, r, small+"/store")
	mustFail(t, p, r.ref("v1"), ErrNoSpace)
	wantEmpty(t, p)
	if n := mounts(t, small); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

// Many who look for a free loop device at once each find one, and each is free
// again when it is closed.
func TestLoopRace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "image")
	if err := writeProbe(file); err != nil {
		t.Fatal(err)
	}
	if d, err := AttachLoop(file); err != nil {
		t.Skipf("this kernel has no loop devices: %v", err)
	} else {
		d.Close()
	}
	var wg sync.WaitGroup
	devices := make([]*os.File, 40)
	for i := range devices {
		wg.Go(func() {
			d, err := AttachLoop(file)
			if err != nil {
				t.Error(err)
				return
			}
			devices[i] = d
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, d := range devices {
		if d == nil {
			continue
		}
		if seen[d.Name()] {
			t.Errorf("%s was given out twice", d.Name())
		}
		seen[d.Name()] = true
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); loops(t, dir) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d loop devices are left", loops(t, dir))
		}
	}
}
