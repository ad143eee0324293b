// SPDX-License-Identifier: Apache-2.0

//go:build interop

package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/casemate/casemate/rootfs/kernel"
)

const (
	// shippedMax bounds what a release ships of casemate itself, in bytes: the boot's
	// initramfs and the root.
	shippedMax = 45_000_000
	nobody     = 65534
)

// buildGuest runs bin/casemate-build as one user, in one directory, under one umask,
// and returns the SHA-256 and the size of every artifact.
func buildGuest(t *testing.T, program, modules, umask string, uid uint32) (sums map[string]string, sizes map[string]int64) {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{dir: 0o777, filepath.Dir(dir): 0o755} { // for the other user
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	sums, sizes = make(map[string]string), make(map[string]int64)
	command := func(arguments string) []byte {
		script := fmt.Sprintf("umask %s; exec %s/casemate-build rootfs %s", umask, bin, arguments)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir}
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", arguments, err)
		}
		return out
	}
	run := func(arguments string) {
		out := command(arguments + " --json")
		var result struct {
			artifact
			Artifacts []artifact `json:"artifacts"`
		}
		if err := json.Unmarshal(out, &result); err != nil {
			t.Fatal(err)
		}
		for _, a := range append(result.Artifacts, result.artifact) {
			if a.Path != "" {
				sums[a.Path], sizes[a.Path] = a.SHA256, a.Bytes
			}
		}
	}
	inputs := " --casemate " + program + " --modules " + modules
	run("image -o root" + inputs)
	run("image -o gpt --table gpt" + inputs)
	run("initramfs -o guest.cpio" + inputs)
	run("initramfs -o kata.initrd --compress gzip --file /etc/casemate/casemate.toml=root/root_hash.txt" + inputs)
	run(`initramfs -o boot.cpio --pin "$(cat root/root_hash.txt)"` + inputs)
	run("uki -o boot.efi --stub /usr/lib/systemd/boot/efi/linuxx64.efi.stub --initrd boot.cpio --kernel " + filepath.Join(modules, "../../../boot/vmlinuz-"+filepath.Base(modules)))
	run("extension -o coco --casemate " + program)
	for _, init := range []string{"agent", "systemd"} {
		command("overlay -o overlay-" + init + " --init " + init + " --casemate " + program)
		addTree(t, sums, dir, "overlay-"+init)
	}
	return sums, sizes
}

// addTree adds what a directory holds: of each name its kind and mode, of a file the
// SHA-256, of a link the target.
func addTree(t *testing.T, sums map[string]string, dir, name string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, name), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(text))
		case info.Mode()&os.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		place, err := filepath.Rel(dir, path)
		sums[place] = info.Mode().String() + " " + content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anotherUser is nobody, if nobody can read below dir and this test may become
// nobody.
func anotherUser(t *testing.T, dir string) uint32 {
	t.Helper()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o005 != 0o005 {
			t.Logf("both builds are one user's: another may not look into %s", dir)
			return 0
		}
	}
	return nobody
}

// TestRootfsTwice: the real program and Debian's kernel, built by two users in two
// directories under two umasks, from copies of the program with other times: the
// same SHA-256 for every artifact, and no more bytes than a release may ship.
func TestRootfsTwice(t *testing.T) {
	cache, err := filepath.Abs("../../build/cache/kernel")
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Prepare(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(filepath.Dir(k.Compressed), "../lib/modules", k.Version)
	program, err := os.ReadFile("../../bin/casemate")
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "another-name")
	if err := os.WriteFile(other, program, 0o755); err != nil {
		t.Fatal(err)
	}
	first, err := filepath.Abs("../../bin/casemate")
	if err != nil {
		t.Fatal(err)
	}
	a, sizes := buildGuest(t, first, modules, "022", 0)
	b, _ := buildGuest(t, other, modules, "077", anotherUser(t, cache))
	for _, name := range []string{
		"root/root.erofs", "root/root.verity", "root/root.img", "root/root_hash.txt", "gpt/root.img", "guest.cpio", "kata.initrd", "boot.cpio", "boot.efi",
		"coco/kata-containers-coco-extension.img", "coco/root_hash_coco-extension.txt",
		"overlay-agent/osbuilder.env", "overlay-systemd/osbuilder.env",
	} {
		if a[name] == "" {
			t.Errorf("no %s: %v", name, a)
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d artifacts, then %d", len(a), len(b))
	}
	for name, sum := range a {
		if b[name] != sum {
			t.Errorf("%s: %s and %s", name, sum, b[name])
		}
	}
	if shipped := sizes["boot.cpio"] + sizes["root/root.erofs"]; shipped > shippedMax {
		t.Errorf("initramfs %d + root %d bytes, want at most %d together", sizes["boot.cpio"], sizes["root/root.erofs"], shippedMax)
	}
	fmt.Printf("rootfs: shipped %d of %d bytes: initramfs %d, root %d (hash tree %d, whole guest as initramfs %d); %d artifacts built twice\n",
		sizes["boot.cpio"]+sizes["root/root.erofs"], shippedMax, sizes["boot.cpio"], sizes["root/root.erofs"], sizes["root/root.verity"], sizes["guest.cpio"], len(a))
}
