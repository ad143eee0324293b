// SPDX-License-Identifier: Apache-2.0

//go:build interop || root

package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a filesystem to unpack on.
type mounted struct{ name, dir string }

// filesystems mounts one of each kind that guests keep layers on.
func filesystems(t *testing.T) []mounted {
	t.Helper()
	needRoot(t)
	var places []mounted
	for _, kind := range []struct{ name, mkfs string }{{"tmpfs", ""}, {"ext4", "mkfs.ext4"}, {"xfs", "mkfs.xfs"}} {
		dir := t.TempDir()
		args := []string{"-t", "tmpfs", "tmpfs", dir}
		if kind.mkfs != "" {
			need(t, kind.mkfs)
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(disk, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(disk, 512<<20); err != nil {
				t.Fatal(err)
			}
			run(t, dir, kind.mkfs, "-q", disk)
			args = []string{"-o", "loop", "-t", kind.name, disk, dir}
		}
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("needs %s: %v: %s", kind.name, err, out)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		places = append(places, mounted{kind.name, dir})
	}
	return places
}

// tally counts what one comparison covered.
type tally struct {
	where                    []mounted
	images, files, different int
}

func (r *tally) run(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	r.images++
	if !t.Run(name, f) {
		r.different++
	}
}

// print writes the line that make root shows.
func (r *tally) print(what string) {
	names := make([]string, len(r.where))
	for i, p := range r.where {
		names[i] = p.name
	}
	fmt.Printf("conformance: %d %s, on %s: %d files compared, %d with differences\n", r.images, what, strings.Join(names, ", "), r.files, r.different)
}

// umociImage is an image of tar layers, bottom first.
type umociImage struct {
	name   string
	layers []*archive
}

func upper() *archive { return (&archive{}).dir("./") }

// base is a lowest layer with n directories.
func base(n int) *archive {
	a := upper()
	for i := range n {
		a.dir(fmt.Sprintf("dir%d", i)).file(fmt.Sprintf("dir%d/a", i), "lower").file(fmt.Sprintf("dir%d/b", i), "lower").
			dir(fmt.Sprintf("dir%d/sub", i)).file(fmt.Sprintf("dir%d/sub/c", i), "lower")
	}
	return a.symlink("link", "dir0").file("file", "lower")
}

// owned changes an entry's owner.
func owned(uid, gid int64) func([]byte) {
	return func(b []byte) {
		octal(b[108:116], uid)
		octal(b[116:124], gid)
	}
}

func whiteoutImages() []umociImage {
	return []umociImage{
		{"one layer", []*archive{base(2)}},
		{"whiteouts", []*archive{base(2), upper().dir("dir0").file("dir0/.wh.a", "").file(".wh.file", "").file(".wh.dir1", "")}},
		{"whiteout before its file", []*archive{base(2), upper().file(".wh.file", "").file("file", "upper")}},
		{"whiteout behind its file", []*archive{base(2), upper().file("file", "upper").file(".wh.file", "")}},
		{"whiteout before its directory", []*archive{base(2), upper().file(".wh.dir0", "").dir("dir0").file("dir0/new", "upper")}},
		{"whiteout of nothing", []*archive{base(1), upper().file(".wh.never", "").dir("dir0").file("dir0/.wh.never", "")}},
		{"whiteout in a directory that no lower layer has", []*archive{base(1), upper().dir("new").file("new/x", "1").file("new/.wh.y", "")}},
		{"whiteout deep down", []*archive{base(1), upper().dir("dir0").dir("dir0/sub").file("dir0/sub/.wh.c", "")}},
		{"whiteout of a symlink", []*archive{base(1), upper().file(".wh.link", "")}},
		{"whiteout twice", []*archive{base(1), upper().file(".wh.file", "").file(".wh.file", "")}},
		{"whiteout in two layers", []*archive{base(1), upper().file(".wh.file", ""), upper().file(".wh.file", "")}},
		{"whiteout undone above", []*archive{base(1), upper().file(".wh.file", ""), upper().file("file", "back")}},
		{"opaque first", []*archive{base(2), upper().dir("dir0").file("dir0/.wh..wh..opq", "").file("dir0/new", "upper")}},
		{"opaque last", []*archive{base(2), upper().dir("dir0").file("dir0/new", "upper").file("dir0/.wh..wh..opq", "")}},
		{"opaque between", []*archive{base(2), upper().dir("dir0").file("dir0/x", "1").file("dir0/.wh..wh..opq", "").file("dir0/y", "2")}},
		{"opaque deep down", []*archive{base(1), upper().dir("dir0").dir("dir0/sub").file("dir0/sub/.wh..wh..opq", "").file("dir0/sub/d", "new")}},
		{"opaque and whiteout", []*archive{base(1), upper().dir("dir0").file("dir0/.wh..wh..opq", "").file("dir0/.wh.a", "")}},
		{"opaque of a new directory", []*archive{base(1), upper().dir("new").file("new/.wh..wh..opq", "").file("new/x", "1")}},
		{"opaque in two layers", []*archive{base(1), upper().dir("dir0").file("dir0/.wh..wh..opq", "").file("dir0/x", "1"), upper().dir("dir0").file("dir0/.wh..wh..opq", "").file("dir0/y", "2")}},
		{"deleted and made again", []*archive{base(1), upper().file(".wh.dir0", ""), upper().dir("dir0").file("dir0/z", "top")}},
	}
}

func replacingImages() []umociImage {
	long := strings.Repeat("n", 90)
	return []umociImage{
		{"file over directory", []*archive{base(2), upper().file("dir0", "upper")}},
		{"directory over file", []*archive{base(2), upper().dir("file").file("file/new", "upper")}},
		{"link over directory", []*archive{base(2), upper().symlink("dir0", "dir1")}},
		{"link over file", []*archive{base(1), upper().symlink("file", "dir0/a")}},
		{"link over link", []*archive{base(2), upper().symlink("link", "dir1")}},
		{"file over link", []*archive{base(1), upper().file("link", "now a file")}},
		{"fifo over file", []*archive{base(1), upper().block(block{kind: typeFIFO, name: "file", mode: 0o600})}},
		{"three layers of one file", []*archive{base(1), upper().file("file", "2"), upper().file("file", "3")}},
		{"file, directory, file", []*archive{base(1), upper().dir("file").file("file/x", "1"), upper().file("file", "again")}},
		{"empty layers", []*archive{base(1), upper(), upper(), upper().file("x", "1"), upper()}},
		{"A, B, A", []*archive{base(1).file("x", "A"), upper().file("x", "B").file("y", "B"), base(1).file("x", "A")}},
		{"hard links", []*archive{base(1), upper().file("x", "1").hardLink("y", "x").symlink("s", "x").hardLink("t", "s")}},
		{"hard link replaced above", []*archive{upper().file("x", "1").hardLink("y", "x"), upper().file("y", "2")}},
		{"hard link deleted above", []*archive{upper().file("x", "1").hardLink("y", "x"), upper().file(".wh.x", "")}},
		{"hard link into a directory", []*archive{upper().dir("d").file("d/x", "1").dir("e").hardLink("e/y", "d/x")}},
		{"attributes of a lower directory changed", []*archive{base(1), upper().block(block{kind: typeDir, name: "dir0", mode: 0o1700, mtime: 1700000000})}},
		{"owner of a lower directory changed", []*archive{base(1), upper().block(block{kind: typeDir, name: "dir0", patch: owned(1000, 2000)})}},
		{"owners and special bits", []*archive{upper().block(block{kind: typeFile, name: "suid", mode: 0o4755, patch: owned(33, 34)}).block(block{kind: typeFile, name: "sgid", mode: 0o2755, patch: owned(0, 5)}).block(block{kind: typeDir, name: "tmp", mode: 0o1777})}},
		{"times", []*archive{upper().block(block{kind: typeFile, name: "old", mtime: 1}).block(block{kind: typeFile, name: "new", mtime: 4102444800}).block(block{kind: typeDir, name: "d", mtime: 1234567890}).block(block{kind: typeFile, name: "d/x", mtime: 5})}},
		{"attributes in pax", []*archive{upper().pax(record("SCHILY.xattr.user.note", "a value")).file("x", "1").pax(record("SCHILY.xattr.user.on-dir", "v")).dir("d")}},
		{"file capability", []*archive{upper().pax(record("SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")).block(block{kind: typeFile, name: "ping", mode: 0o755, patch: owned(7, 8)})}},
		{"long and strange names", []*archive{upper().dir(long).pax(record("path", long+"/"+long)).dir("ignored").pax(record("path", long+"/"+long+"/x")).file("ignored", "far").file("new\nline", "1").file("\xff\xfe", "2").file(" ", "3").file("-rf", "4").file("ünïcödé", "5")}},
		{"dot and slash in names", []*archive{upper().file("./a", "1").file("/b", "2").dir("c/").file("c/./d", "3").dir("e").file("e//f", "4")}},
	}
}

// randomImage builds layers that add, replace, delete and empty at random.
func randomImage(seed uint64) umociImage {
	rng := rand.New(rand.NewPCG(seed, 2))
	img := umociImage{name: fmt.Sprintf("random %d", seed)}
	dirs := map[string]bool{"": true} // what exists so far, in some layer
	for layer := range 3 + rng.IntN(4) {
		a := upper()
		done := map[string]bool{}
		for range 4 + rng.IntN(12) {
			parent := ""
			for _, d := range sortedKeys(dirs) {
				if rng.IntN(3) == 0 && !done[d] {
					parent = d
				}
			}
			name := parent + fmt.Sprintf("n%d", rng.IntN(6))
			if done[name] || done[name+"/"] || done[parent] && parent != "" {
				continue
			}
			describe(a, parent, done)
			done[name] = true
			addRandom(a, rng, name, layer, dirs, done)
		}
		img.layers = append(img.layers, a)
	}
	return img
}

// describe gives a directory and its parents entries of their own in this layer.
func describe(a *archive, dir string, done map[string]bool) {
	for i, c := range dir {
		if c == '/' && !done["entry of "+dir[:i+1]] {
			done["entry of "+dir[:i+1]] = true
			a.dir(dir[:i+1])
		}
	}
}

// addRandom writes one entry. A name that stops being a directory in this layer
// is closed for the rest of it: which of two entries wins is no matter of taste.
func addRandom(a *archive, rng *rand.Rand, name string, layer int, dirs, done map[string]bool) {
	described := done["entry of "+name+"/"]
	switch kind := rng.IntN(8); {
	case kind < 3 && !described:
		a.file(name, fmt.Sprintf("%s in layer %d", name, layer))
		dropBelow(dirs, name)
	case kind == 3 && !described:
		a.symlink(name, fmt.Sprintf("n%d", rng.IntN(6)))
		dropBelow(dirs, name)
	case kind == 4 && layer > 0 && !described:
		slash := strings.LastIndexByte(name, '/') + 1
		a.file(name[:slash]+".wh."+name[slash:], "")
		dropBelow(dirs, name)
	case kind == 5 && layer > 0 && dirs[name+"/"] && !anyBelow(done, name):
		describe(a, name+"/", done)
		a.file(name+"/.wh..wh..opq", "")
		dropBelow(dirs, name)
		dirs[name+"/"] = true
		done[name+"/"] = true
	default:
		describe(a, name+"/", done)
		dirs[name+"/"] = true
		delete(done, name)
	}
}

// anyBelow reports whether this layer has said something about what is below name.
func anyBelow(done map[string]bool, name string) bool {
	for d := range done {
		if strings.HasPrefix(strings.TrimPrefix(d, "entry of "), name+"/") {
			return true
		}
	}
	return false
}

func dropBelow(dirs map[string]bool, name string) {
	for d := range dirs {
		if strings.HasPrefix(d, name+"/") {
			delete(dirs, d)
		}
	}
}

func sortedKeys(m map[string]bool) []string {
	var keys []string
	for i := 0; i < 12; i++ {
		for k := range m {
			if strings.Count(k, "/") == i {
				keys = append(keys, k)
			}
		}
	}
	// Map order is not to decide: sort within the depths, too.
	for i := range keys {
		for j := i + 1; j < len(keys); j++ {
			if strings.Count(keys[j], "/") == strings.Count(keys[i], "/") && keys[j] < keys[i] {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
	return keys
}

// TestAgainstUmoci unpacks images of several layers, stacks the layers with
// overlayfs, and compares with umoci's root filesystem, file by file.
func TestAgainstUmoci(t *testing.T) {
	needRoot(t)
	need(t, "umoci")
	images := append(whiteoutImages(), replacingImages()...)
	for seed := range uint64(20) {
		images = append(images, randomImage(seed))
	}
	report := tally{where: filesystems(t)}
	for _, img := range images {
		for _, layer := range img.layers {
			layer.end()
		}
		report.run(t, img.name, func(t *testing.T) {
			for _, place := range report.where {
				report.files += againstUmoci(t, place.dir, img)
			}
		})
	}
	report.print("images against umoci, as directories and as erofs")
}

func againstUmoci(t *testing.T, where string, img umociImage) (files int) {
	t.Helper()
	work, err := os.MkdirTemp(where, "umoci")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	rootfs := filepath.Join(work, "umoci")
	run(t, work, "umoci", "raw", "unpack", "--image", ociLayout(t, img.layers)+":test", rootfs)
	want := snapshot(t, rootfs, nil)
	for _, form := range []func(*testing.T, string, []byte) string{asDirectory, asImage} {
		// overlayfs wants two directories; an empty one at the bottom changes nothing.
		merged, empty := filepath.Join(work, "merged"), filepath.Join(work, "empty")
		for _, dir := range []string{merged, empty} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		lower := []string{empty}
		for _, layer := range img.layers {
			lower = append([]string{form(t, work, layer.Bytes())}, lower...)
		}
		if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY|unix.MS_NODEV, "lowerdir="+strings.Join(lower, ":")); err != nil {
			t.Fatalf("mounting overlayfs on %s: %v", work, err)
		}
		got := snapshot(t, merged, nil)
		compare(t, got, want)
		files += len(got)
		for _, mounted := range append(lower[:len(lower)-1], merged) {
			if err := unix.Unmount(mounted, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				t.Error(err)
			}
		}
	}
	return files
}

// asDirectory unpacks a layer below work.
func asDirectory(t *testing.T, work string, layer []byte) string {
	t.Helper()
	dir, _, err := unpackIn(t, work, bytes.NewReader(layer), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// asImage makes an image of a layer below work and mounts it there, as a file or, where that file's filesystem does
// not allow it, as a loop device.
func asImage(t *testing.T, work string, layer []byte) string {
	t.Helper()
	dir, err := os.MkdirTemp(work, "image")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + ".erofs")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Image(t.Context(), f, bytes.NewReader(layer), [16]byte{}, Limits{}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, f.Name())
	if unix.Mount(f.Name(), dir, "erofs", unix.MS_RDONLY, "") != nil {
		run(t, work, "mount", "-t", "erofs", "-o", "loop,ro", f.Name(), dir)
	}
	return dir
}
