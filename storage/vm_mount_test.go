// SPDX-License-Identifier: Apache-2.0

//go:build vm

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// ext4Image is an empty file system that mkfs.ext4 has made outside, every block of which is written.
type ext4Image struct{}

func (ext4Image) Format(w io.WriterAt, size int64) error {
	image, err := os.ReadFile("/tests/ext4.img")
	if err != nil {
		return err
	}
	_, err = w.WriteAt(image, 0)
	return err
}

// deviceNumber is MAJOR:MINOR of a node.
func deviceNumber(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

func secureMounts(c *devmapper.Control) *SecureMounts {
	return &SecureMounts{
		Volumes: volumes(c), Measured: []VolumeConfig{layouts["hmac"]}, Scratch: true, Below: []string{os.TempDir()}, Cipher: devmapper.AESXTSHMACSHA256,
		MakeExt4: func(string) (Formatter, error) { return ext4Image{}, nil },
	}
}

func mountRequest(t *testing.T, s *SecureMounts, options map[string]string, point string) error {
	t.Helper()
	m, err := ParseSecureMount("block-device", options, nil, point)
	if err != nil {
		t.Fatal(err)
	}
	return s.Mount(t.Context(), m)
}

// mappings lists what is in /dev/mapper beside its control node.
func mappings(t *testing.T) (names []string) {
	t.Helper()
	list, err := os.ReadDir("/dev/mapper")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != "control" {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestVMSecureMountScratch carries out what kata's agent asks for an encrypted emptyDir.
func TestVMSecureMountScratch(t *testing.T) {
	s := secureMounts(openControl(t))
	options := emptyDir()
	options["deviceId"] = deviceNumber(t, diskB)
	point := filepath.Join(t.TempDir(), "sandbox", "storage")
	if err := mountRequest(t, s, options, point); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		t.Errorf("file system %#x, %v", st.Type, err)
	}
	if want := int64(unix.ST_NOATIME | unix.ST_NODEV | unix.ST_NOSUID); st.Flags&want != want {
		t.Errorf("mount flags %#x", st.Flags)
	}
	content := bytes.Repeat([]byte("plaintext "), 100_000)
	if err := os.WriteFile(filepath.Join(point, "file"), content, 0o600); err != nil {
		t.Error(err)
	}
	if err := mountRequest(t, s, options, point); err != nil {
		t.Errorf("the same request once more: %v", err)
	}
	other := maps.Clone(options)
	other["mkfsOpts"] = "-m 0"
	if err := mountRequest(t, s, other, point); err == nil {
		t.Error("another request for the same path")
	}
	if err := mountRequest(t, s, options, point+"2"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second mount of the device: %v", err)
	}
	f, err := os.Open(filepath.Join(point, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(point); !errors.Is(err, unix.EBUSY) {
		t.Errorf("closing while a file is open: %v", err)
	}
	if err := errors.Join(f.Close(), s.Close(point)); err != nil {
		t.Error(err)
	}
	if left := mappings(t); len(left) > 0 {
		t.Errorf("still mapped: %q", left)
	}
	if bytes.Contains(wholeDisk(t, diskB), []byte("plaintext")) {
		t.Error("plaintext on the disk")
	}
}

// TestVMSecureMountDevice makes a link to a device all of which can be read.
func TestVMSecureMountDevice(t *testing.T) {
	s := secureMounts(openControl(t))
	point := filepath.Join(t.TempDir(), "link")
	options := map[string]string{"devicePath": diskB, "sourceType": "empty", "targetType": "device", "encryptionType": "luks2", "mapperName": "vm-named"}
	if err := mountRequest(t, s, options, point); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(point); err != nil || target != "/dev/mapper/vm-named" {
		t.Errorf("link to %s, %v", target, err)
	}
	if got, err := readDisk(point, 10<<20, 1<<20); err != nil || len(bytes.Trim(got, "\x00")) > 0 {
		t.Errorf("reading: %v", err)
	}
	if err := s.CloseAll(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(point); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is still there: %v", err)
	}
}

// TestVMSecureMountVolume: a file outlives the mapping; a blank disk or one of another key is refused and not formatted.
func TestVMSecureMountVolume(t *testing.T) {
	c := openControl(t)
	config := layouts["hmac"]
	blank(t, diskA)
	options := encrypted()
	options["devicePath"], options["targetType"] = diskA, "fileSystem"
	point := filepath.Join(t.TempDir(), "data")
	if err := mountRequest(t, secureMounts(c), options, point); err == nil || !strings.Contains(err.Error(), "no LUKS signature") {
		t.Errorf("a blank disk: %v", err)
	}
	if len(bytes.Trim(wholeDisk(t, diskA), "\x00")) > 0 {
		t.Error("a blank disk was written to")
	}
	if err := volumes(c).Create(t.Context(), config, diskA, ext4Image{}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s := secureMounts(c)
		if err := mountRequest(t, s, options, point); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(point, "file")
		if i == 0 {
			if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
				t.Error(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "kept" {
			t.Errorf("round %d: %q, %v", i, got, err)
		}
		if err := s.CloseAll(); err != nil {
			t.Fatal(err)
		}
	}
	wrong := secureMounts(c)
	key := newSecret()
	key.key[0] ^= 1
	wrong.Volumes.Keys = key
	if err := mountRequest(t, wrong, options, point); !errors.Is(err, luks.ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	if left := mappings(t); len(left) > 0 {
		t.Errorf("still mapped: %q", left)
	}
}
