// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mountImage mounts an image with fresh upper and work directories, on a tmpfs of
// its own: an overlay cannot write into another overlay.
func mountImage(t testing.TB, img *Image) string {
	t.Helper()
	target, upper, work := overlayDirs(t)
	if err := img.Mount(target, upper, work); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(target); err != nil {
			t.Error(err)
		}
	})
	return target
}

func overlayDirs(t testing.TB) (target, upper, work string) {
	t.Helper()
	needRoot(t)
	base := t.TempDir()
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, ""); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{"target", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(base, "target"), filepath.Join(base, "upper"), filepath.Join(base, "work")
}

func TestMount(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{
		gzipLayer(t, tarOf(t, entry{name: "keep", body: "keep"}, entry{name: "gone", body: "x"}, entry{name: "d/", typ: tar.TypeDir}, entry{name: "d/old", body: "x"})),
		gzipLayer(t, tarOf(t, entry{name: ".wh.gone"}, entry{name: "d/", typ: tar.TypeDir}, entry{name: "d/.wh..wh..opq"}, entry{name: "d/new", body: "new"},
			entry{name: "null", typ: tar.TypeChar, mode: 0o666, major: 1, minor: 3})),
	}})
	r.put(t, "none", testImage{})
	p := newTestPuller(t, r)
	img := mustPull(t, p, r.ref("v1"))
	for name, mount := range map[string]func([]string, string, string, string) error{"lowerdir+": mountOverlay, "one string": mountOverlayString} {
		t.Run(name, func(t *testing.T) {
			target, upper, work := overlayDirs(t)
			if err := mount(img.lower, target, upper, work); err != nil {
				t.Fatal(err)
			}
			defer Unmount(target)
			wantFile(t, target+"/keep", "keep")
			wantFile(t, target+"/d/new", "new")
			for _, gone := range []string{"gone", "d/old"} {
				if _, err := os.Lstat(filepath.Join(target, gone)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: got %v, want it deleted", gone, err)
				}
			}
			if err := os.WriteFile(target+"/keep", []byte("written"), 0o600); err != nil {
				t.Fatal(err)
			}
			wantFile(t, img.Layers[0]+"/keep", "keep")
			wantFile(t, upper+"/keep", "written")
			// A device node of the image is a node and no device.
			if _, err := os.Open(target + "/null"); !errors.Is(err, unix.EACCES) {
				t.Errorf("opening a device node: got %v, want EACCES", err)
			}
		})
	}
	empty := mountImage(t, mustPull(t, p, r.ref("none")))
	if entries, err := os.ReadDir(empty); err != nil || len(entries) != 0 {
		t.Errorf("image without layers: %v, %v", entries, err)
	}
	if err := img.Mount(filepath.Join(t.TempDir(), "absent"), t.TempDir(), t.TempDir()); err == nil {
		t.Error("mounted on an absent directory")
	}
}

// Options of mount(2) end at one page; fsconfig takes every layer by itself.
func TestMountManyLayers(t *testing.T) {
	var layers []testLayer
	for i := range 300 {
		layers = append(layers, plainLayer(tarOf(t, entry{name: fmt.Sprint("f", i), body: fmt.Sprint(i)}, entry{name: "last", body: fmt.Sprint(i)})))
	}
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: layers})
	img := mustPull(t, newTestPuller(t, r), r.ref("v1"))
	target, upper, work := overlayDirs(t)
	if err := mountOverlay(img.lower, target, upper, work); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("this kernel has no lowerdir+: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer Unmount(target)
	wantFile(t, target+"/f0", "0")
	wantFile(t, target+"/last", "299")
}

// A directory that a layer does not describe keeps what a lower layer said.
func TestMountImpliedDirectories(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{
		gzipLayer(t, tarOf(t, entry{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 3},
			entry{name: "tmp/", typ: tar.TypeDir, mode: 0o1777}, entry{name: "home/", typ: tar.TypeDir, mode: 0o700, uid: 5},
			entry{name: "home/me/", typ: tar.TypeDir, mode: 0o750, uid: 6}, entry{name: "cut/", typ: tar.TypeDir, mode: 0o700}, entry{name: "gone/", typ: tar.TypeDir, mode: 0o700},
			entry{name: "own/", typ: tar.TypeDir, mode: 0o700})),
		gzipLayer(t, tarOf(t, entry{name: "tmp/f"}, entry{name: "home/me/f"}, entry{name: "cut/.wh..wh..opq"}, entry{name: "cut/f"}, entry{name: ".wh.gone"},
			entry{name: "own/", typ: tar.TypeDir, mode: 0o770})),
		gzipLayer(t, tarOf(t, entry{name: "home/me/g"}, entry{name: "gone/f"}, entry{name: "own/f"})),
	}})
	target := mountImage(t, mustPull(t, newTestPuller(t, r), r.ref("v1")))
	for path, want := range map[string]struct {
		mode uint32
		uid  uint32
		time int64
	}{
		".":       {0o711, 3, 1700000000},
		"tmp":     {0o1777, 0, 1700000000},
		"home":    {0o700, 5, 1700000000},
		"home/me": {0o750, 6, 1700000000},
		"cut":     {0o755, 0, 0}, // opaque: what was below does not count
		"gone":    {0o755, 0, 0}, // deleted in between
		"own":     {0o770, 0, 1700000000},
	} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(target, path), &st); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if st.Mode&0o7777 != want.mode || st.Uid != want.uid || want.time != 0 && st.Mtim.Sec != want.time {
			t.Errorf("%s: got mode %o uid %d time %s, want mode %o uid %d", path, st.Mode&0o7777, st.Uid, time.Unix(st.Mtim.Sec, 0), want.mode, want.uid)
		}
	}
}
