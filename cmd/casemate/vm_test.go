// SPDX-License-Identifier: Apache-2.0

//go:build vm && sample

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage/luks"
)

// volumeFile is a measured configuration with the volume data at an offset.
func volumeFile(t *testing.T, offset int, fs string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "casemate.toml")
	text := fmt.Sprintf(`tee = "sample"
[volume.data]
key = "file://%s/data"
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = %d
own_header = true
fs = %q
`, config.VolumeKeyDir, offset, fs)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// volume runs the verb and returns what it prints to standard output.
func volume(t *testing.T, args ...string) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	err = runVolume(context.Background(), args)
	os.Stdout = stdout
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out, err2 := io.ReadAll(r)
	if err = errors.Join(err2, r.Close(), err); err != nil {
		return "", err
	}
	return string(out), nil
}

// block reads or writes the first block of a device.
func block(path string, write []byte) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	if write != nil {
		_, err = f.WriteAt(write, 0)
	} else {
		_, err = f.ReadAt(b, 0)
	}
	return b, errors.Join(err, f.Sync(), f.Close())
}

// blankWithKey zeroes the start of a disk, as a new one is, and writes the key file of volumeFile.
func blankWithKey(t *testing.T, disk string) {
	t.Helper()
	blank, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blank.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(blank.Sync(), blank.Close(), os.MkdirAll(config.VolumeKeyDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(config.VolumeKeyDir, "data")
	if err := os.WriteFile(key, bytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(key) })
}

// TestVMVolumeFileSystem: create makes the file system that configuration names, which keeps a file from one opening
// to the next.
func TestVMVolumeFileSystem(t *testing.T) {
	const disk = "/dev/vdc"
	blankWithKey(t, disk)
	file, point := volumeFile(t, 1<<20, config.FSExt4), t.TempDir()
	if _, err := volume(t, "create", "--config", file, "data", disk); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := volume(t, "open", "--config", file, "data", disk); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("/dev/mapper/data", point, "ext4", 0, "errors=remount-ro"); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.WriteFile(filepath.Join(point, "file"), []byte("kept"), 0o600); err != nil {
				t.Error(err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(point, "file")); err != nil || string(got) != "kept" {
			t.Errorf("round %d: %q, %v", i, got, err)
		}
		if err := unix.Unmount(point, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := volume(t, "close", "data"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVMVolumeVerbs makes, opens, uses and closes a volume as a person does, with a key file.
func TestVMVolumeVerbs(t *testing.T) {
	const disk = "/dev/vda"
	blankWithKey(t, disk)
	const offset = 1 << 20
	file := volumeFile(t, offset, config.FSNone)
	if _, err := volume(t, "open", "--config", file, "data", disk); err == nil {
		t.Error("a blank disk opened")
	}
	if out, err := volume(t, "create", "--config", file, "data", disk); err != nil || out != "" {
		t.Fatalf("create: %q, %v", out, err)
	}
	if _, err := volume(t, "create", "--config", file, "data", disk); !errors.Is(err, luks.ErrNotBlank) {
		t.Errorf("create once more: %v", err)
	}
	content := bytes.Repeat([]byte("kept "), 1000)[:4096]
	for i := range 2 {
		out, err := volume(t, "open", "--config", file, "data", disk)
		if err != nil || out != "/dev/mapper/data\n" {
			t.Fatalf("open: %q, %v", out, err)
		}
		if i == 0 {
			_, err = block("/dev/mapper/data", content)
		} else if got, err2 := block("/dev/mapper/data", nil); err2 != nil || !bytes.Equal(got, content) {
			err = fmt.Errorf("another content: %w", err2)
		}
		if err != nil {
			t.Error(err)
		}
		if _, err := volume(t, "close", "data"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := volume(t, "close", "data"); !errors.Is(err, unix.ENXIO) {
		t.Errorf("close once more: %v", err)
	}
	if _, err := volume(t, "open", "--config", file, "other", disk); err == nil || !strings.Contains(err.Error(), "no volume") {
		t.Errorf("a volume that is not configured: %v", err)
	}
	_, err := volume(t, "open", "--config", volumeFile(t, 2*offset, config.FSNone), "data", disk)
	if m, ok := errors.AsType[*luks.Mismatch](err); !ok || m.Field != "offset" {
		t.Errorf("another offset: %v", err)
	}
}
