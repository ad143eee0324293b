// SPDX-License-Identifier: Apache-2.0

//go:build interop || root

package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// need skips when a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
}

func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

// plainTree has what every format can hold.
func plainTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"d", "d/empty", "d/sticky", "d/setgid", "d/closed", "links"} {
		must(os.Mkdir(at(name), 0o755))
		must(os.Chown(at(name), 100*i, 10*i))
	}
	for i, content := range []string{"", "x", strings.Repeat("y", 511), strings.Repeat("z", 512), strings.Repeat("w", 513), strings.Repeat("b", 3<<20)} {
		name := at(fmt.Sprintf("d/file%d", i))
		must(os.WriteFile(name, []byte(content), 0o644))
		must(os.Chown(name, i, 2*i))
	}
	must(os.WriteFile(at("d/setuid"), []byte("s"), 0o755))
	must(os.Chown(at("d/setuid"), 5, 6))
	must(unix.Chmod(at("d/setuid"), 0o6755))
	must(os.WriteFile(at("d/nothing"), []byte("s"), 0))
	must(unix.Chmod(at("d/nothing"), 0))
	must(os.WriteFile(at("d/umask"), []byte("s"), 0o644))
	must(unix.Chmod(at("d/umask"), 0o666))
	must(os.Symlink("../d/file1", at("links/relative")))
	must(os.Symlink("/etc/passwd", at("links/absolute")))
	must(os.Lchown(at("links/absolute"), 77, 88))
	must(os.Symlink("nowhere", at("links/dangling")))
	must(os.Link(at("d/file5"), at("links/hard")))
	must(os.Link(at("links/absolute"), at("links/hard-to-symlink")))
	must(unix.Mkfifo(at("d/fifo"), 0o622))
	must(unix.Mknod(at("d/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(at("d/loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 200))))
	must(unix.Chmod(at("d/sticky"), 0o1777))
	must(unix.Chmod(at("d/setgid"), 0o2775))
	must(unix.Chmod(at("d/closed"), 0o500))
	return dir
}

// richTree adds what only pax and GNU archives hold.
func richTree(t *testing.T, attributes bool) string {
	t.Helper()
	dir := plainTree(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	deep := strings.Repeat("deeper-and-deeper/", 20)
	must(os.MkdirAll(at(deep), 0o755))
	long := deep + strings.Repeat("n", 255)
	must(os.WriteFile(at(long), []byte("far away"), 0o644))
	must(os.Link(at(long), at("links/"+strings.Repeat("h", 200))))
	must(os.Symlink(strings.Repeat("t/", 500), at("links/long-target")))
	must(os.WriteFile(at("d/bytes-\xff\xfe\x01"), []byte("x"), 0o644))
	must(os.WriteFile(at("d/new\nline = %"), []byte("x"), 0o644))
	must(os.WriteFile(at("d/big-owner"), []byte("x"), 0o644))
	must(os.Chown(at("d/big-owner"), 3_000_000_000, 4_000_000_000))
	hole, err := os.Create(at("d/sparse"))
	must(err)
	for i := range int64(100) {
		_, err := hole.WriteAt([]byte(fmt.Sprint("island", i)), i*70_001)
		must(err)
	}
	must(hole.Truncate(9 << 20))
	must(hole.Close())
	must(os.WriteFile(at("d/all-hole"), nil, 0o644))
	must(os.Truncate(at("d/all-hole"), 1<<20))
	if attributes {
		must(unix.Setxattr(at("d/setuid"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		must(unix.Setxattr(at("d/file1"), "user.note", []byte("binary\x00value"), 0))
		must(unix.Setxattr(at("d/empty"), "user.on-directory", []byte("x"), 0))
		must(unix.Setxattr(at("d/file2"), "trusted.note", []byte("y"), 0))
		must(unix.Lsetxattr(at("links/dangling"), "trusted.on-link", []byte("z"), 0))
	}
	return dir
}

// realTrees are parts of the system that the tests run on.
func realTree(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/usr/share/perl", "/usr/sbin"} {
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("needs %s: %v", dir, err)
		}
	}
	return "/"
}

// TestAgainstGNUTar unpacks archives of several writers and compares with what GNU tar makes of them, file by file.
func TestAgainstGNUTar(t *testing.T) {
	needRoot(t)
	need(t, "tar")
	python := `import sys, tarfile
t = tarfile.open(sys.argv[1], "w", format=getattr(tarfile, sys.argv[2]))
t.add(".")
t.close()`
	plain, rich, attributes := plainTree, func(t *testing.T) string { return richTree(t, false) }, func(t *testing.T) string { return richTree(t, true) }
	tests := []struct {
		name, program string
		tree          func(t *testing.T) string
		args          func(out string) []string
	}{
		{"tar v7", "tar", func(t *testing.T) string { return v7Tree(t) }, func(o string) []string { return []string{"--format=v7", "-cf", o, "."} }},
		{"tar oldgnu", "tar", rich, func(o string) []string { return []string{"--format=oldgnu", "-cf", o, "."} }},
		{"tar gnu", "tar", rich, func(o string) []string { return []string{"--format=gnu", "-cf", o, "."} }},
		{"tar gnu sparse", "tar", rich, func(o string) []string { return []string{"--format=gnu", "-S", "-cf", o, "."} }},
		{"tar ustar", "tar", plain, func(o string) []string { return []string{"--format=ustar", "-cf", o, "."} }},
		{"tar pax", "tar", attributes, func(o string) []string {
			return []string{"--format=pax", "--xattrs", "--xattrs-include=*", "-cf", o, "."}
		}},
		{"tar pax sparse 0.0", "tar", rich, func(o string) []string { return []string{"--format=pax", "-S", "--sparse-version=0.0", "-cf", o, "."} }},
		{"tar pax sparse 0.1", "tar", rich, func(o string) []string { return []string{"--format=pax", "-S", "--sparse-version=0.1", "-cf", o, "."} }},
		{"tar pax sparse 1.0", "tar", rich, func(o string) []string { return []string{"--format=pax", "-S", "--sparse-version=1.0", "-cf", o, "."} }},
		{"tar pax of the system", "tar", realTree, func(o string) []string {
			return []string{"--format=pax", "--xattrs", "-cf", o, "usr/share/perl", "usr/sbin"}
		}},
		{"tar gnu of the system", "tar", realTree, func(o string) []string {
			return []string{"--format=gnu", "-cf", o, "usr/share/perl", "usr/sbin", "etc"}
		}},
		{"bsdtar pax", "bsdtar", rich, func(o string) []string { return []string{"--format=pax", "-cf", o, "."} }},
		{"bsdtar ustar", "bsdtar", plain, func(o string) []string { return []string{"--format=ustar", "-cf", o, "."} }},
		{"bsdtar gnutar", "bsdtar", plain, func(o string) []string { return []string{"--format=gnutar", "-cf", o, "."} }},
		{"bsdtar v7", "bsdtar", v7Tree, func(o string) []string { return []string{"--format=v7tar", "-cf", o, "."} }},
		{"busybox", "busybox", rich, func(o string) []string { return []string{"tar", "-cf", o, "."} }},
		{"python pax", "python3", rich, func(o string) []string { return []string{"-c", python, o, "PAX_FORMAT"} }},
		{"python gnu", "python3", rich, func(o string) []string { return []string{"-c", python, o, "GNU_FORMAT"} }},
		{"python ustar", "python3", plain, func(o string) []string { return []string{"-c", python, o, "USTAR_FORMAT"} }},
	}
	report := tally{where: filesystems(t)}
	for _, tt := range tests {
		report.run(t, tt.name, func(t *testing.T) {
			need(t, tt.program)
			file := filepath.Join(t.TempDir(), "layer.tar")
			run(t, tt.tree(t), tt.program, tt.args(file)...)
			for _, place := range report.where {
				report.files += againstGNUTar(t, place.dir, file)
			}
		})
	}
	report.print("archives against GNU tar")
}

// v7Tree is plainTree without devices, which v7 cannot hold.
func v7Tree(t *testing.T) string {
	dir := plainTree(t)
	for _, name := range []string{"d/fifo", "d/null", "d/loop"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func againstGNUTar(t *testing.T, place, file string) (files int) {
	t.Helper()
	theirs, err := os.MkdirTemp(place, "tar")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(theirs)
	// Without the delay tar sets a directory's time before the last of its entries when they do not come together.
	run(t, theirs, "tar", "-xf", file, "-p", "--delay-directory-restore", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*")
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	dir, stats, err := unpackIn(t, place, in, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got, want := snapshot(t, dir, nil), snapshot(t, theirs, nil)
	for _, implied := range stats.ImpliedDirs { // tar gives them the time of the day
		delete(got, implied)
		delete(want, implied)
	}
	compare(t, got, want)
	return len(got)
}

// ociLayout writes an image of plain tar layers.
func ociLayout(t *testing.T, layers []*archive) string {
	t.Helper()
	dir := t.TempDir()
	blob := func(kind string, b []byte) map[string]any {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		path := filepath.Join(dir, "blobs/sha256", sum)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + sum, "size": len(b)}
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var descriptors []any
	var diffIDs []string
	for _, layer := range layers {
		d := blob("layer.v1.tar", layer.Bytes())
		descriptors = append(descriptors, d)
		diffIDs = append(diffIDs, d["digest"].(string))
	}
	config := blob("config.v1+json", encode(map[string]any{"architecture": "amd64", "os": "linux",
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}))
	manifest := blob("manifest.v1+json", encode(map[string]any{"schemaVersion": 2, "config": config, "layers": descriptors}))
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "test"}
	for name, content := range map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": encode(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAgainstGoTar packs a tree with the standard library, as docker and containerd do, and compares what comes out
// with the tree itself.
func TestAgainstGoTar(t *testing.T) {
	needRoot(t)
	tree := richTree(t, true)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	seen := map[uint64]string{}
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		to, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(info, to)
		if err != nil {
			return err
		}
		h.Name, _ = filepath.Rel(tree, path)
		h.Format = tar.FormatPAX
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		var content []byte
		if first, ok := seen[st.Ino]; ok && !info.IsDir() {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		seen[st.Ino] = h.Name
		h.PAXRecords = map[string]string{}
		for _, name := range []string{"security.capability", "user.note", "user.on-directory", "trusted.note", "trusted.on-link"} {
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				h.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
			}
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	report := tally{where: filesystems(t)}
	for _, place := range report.where {
		dir, err := os.MkdirTemp(place.dir, "go")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Layer(context.Background(), dir, bytes.NewReader(b.Bytes()), Limits{}); err != nil {
			t.Fatal(err)
		}
		got := snapshot(t, dir, nil)
		compare(t, got, snapshot(t, tree, nil))
		report.files += len(got)
		os.RemoveAll(dir)
	}
	report.images++
	report.print("archive of Go's tar against its source")
}

// TestFsck: erofs-utils finds nothing wrong with images of archives with everything in them, and does find what is.
func TestFsck(t *testing.T) {
	needRoot(t)
	need(t, "tar")
	cache, err := filepath.Abs(filepath.Dir(fsckErofs))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("../../.ci/fsck-erofs", cache).CombinedOutput(); err != nil {
		t.Skipf("needs a new fsck.erofs: %v: %s", err, out)
	}
	images := 0
	for _, format := range [][]string{{"--format=gnu", "-S"}, {"--format=pax", "-S", "--xattrs", "--xattrs-include=*"}, {"--format=oldgnu"}} {
		tree := richTree(t, true)
		for i := range 3000 {
			if err := os.WriteFile(filepath.Join(tree, "d", fmt.Sprintf("many%d", i)), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		archive := filepath.Join(t.TempDir(), "layer.tar")
		run(t, tree, "tar", append(format, "-cf", archive, ".")...)
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		file, _, err := imageOf(t, data, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := fsck(file); err != nil {
			t.Error(err)
		}
		images++
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		root := raw[int(binary.LittleEndian.Uint32(raw[1024+40:]))*512+64:]
		root[64+8]++ // where the names of its entries begin
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if fsck(file) == nil {
			t.Error("fsck.erofs does not see a directory whose names are elsewhere")
		}
	}
	fmt.Printf("fsck.erofs: %d images are clean, as are all of the comparisons\n", images)
}
