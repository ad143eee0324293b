// SPDX-License-Identifier: Apache-2.0

//go:build vm

package ext4_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/ext4"
)

// disk is the third that the guest of rootfs/vmtest gives: 64 MiB of zeros.
const disk = "/dev/vdc"

// scratch stacks an authenticating cipher on an integrity device, as a scratch disk is. Nothing is wiped: a sector
// that was never written cannot be read.
func scratch(t *testing.T) (path string, size int64) {
	t.Helper()
	c, err := devmapper.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	create := func(name string, target devmapper.Target) devmapper.Device {
		d, err := c.Create(devmapper.Mapping{Name: name, Targets: []devmapper.Target{target}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	lower := devmapper.Integrity{Device: disk, BlockSize: 4096, TagSize: 32, LengthSectors: 8}
	create("ext4-format", lower)
	status, err := c.Status("ext4-format")
	if err != nil || len(status) != 1 {
		t.Fatalf("status %v, %v", status, err)
	}
	if err := c.Remove("ext4-format"); err != nil {
		t.Fatal(err)
	}
	words := append(strings.Fields(status[0].Info), "", "")
	if lower.LengthSectors, err = strconv.ParseUint(words[1], 10, 64); err != nil {
		t.Fatal(err)
	}
	tags := create("ext4-tags", lower)
	t.Cleanup(func() { c.Remove("ext4-tags") })
	key := make([]byte, devmapper.AESXTSHMACSHA256.KeySize())
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	upper := create("ext4-aead", devmapper.Crypt{LengthSectors: lower.LengthSectors, Cipher: devmapper.AESXTSHMACSHA256, Key: key, Device: tags.Path, SectorSize: 4096})
	t.Cleanup(func() { c.Remove("ext4-aead") })
	return upper.Path, int64(lower.LengthSectors) * devmapper.SectorSize
}

// fill writes files until no block is left.
func fill(t *testing.T, dir string, content []byte) (files []string) {
	t.Helper()
	for {
		name := filepath.Join(dir, strconv.Itoa(len(files)))
		err := os.WriteFile(name, content, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
}

// TestVMFullIntegrityDisk makes, mounts, fills and reads back a file system where unwritten sectors fail.
func TestVMFullIntegrityDisk(t *testing.T) {
	path, size := scratch(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 4096), 32<<20); err == nil {
		t.Fatal("an unwritten sector reads: this test would prove nothing")
	}
	o, err := ext4.ParseOptions("-m 0")
	if err != nil {
		t.Fatal(err)
	}
	o.UUID, o.Now = [16]byte{1}, time.Unix(1700000000, 0)
	if _, err := ext4.Format(f, size, o); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mount := func() {
		t.Helper()
		// A damaged block would make this mount read-only, and the next write would fail.
		if err := syscall.Mount(path, dir, "ext4", syscall.MS_NOATIME, "errors=remount-ro"); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() {
		t.Helper()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
	mount()
	block := bytes.Repeat([]byte("full disk\n"), 1<<17)[:1<<20]
	files := fill(t, dir, block)
	unmount()
	if len(files) < 40 {
		t.Errorf("only %d MiB fit", len(files))
	}
	mount()
	defer unmount()
	for _, name := range files {
		if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, block) {
			t.Errorf("reading %s back: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "last"), []byte("still writable"), 0o600); err != nil {
		t.Error(err)
	}
}
