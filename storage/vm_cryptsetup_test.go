// SPDX-License-Identifier: Apache-2.0

//go:build vm

package storage

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// cryptsetup runs the reference, which the test guest has a copy of.
func cryptsetup(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("/usr/sbin/cryptsetup", append([]string{"--batch-mode", "--disable-locks"}, args...)...)
	cmd.Env = []string{"DM_DISABLE_UDEV=1", "PATH=/usr/sbin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// keyOnDisk is the key of newSecret as a file for cryptsetup.
func keyOnDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, newSecret().key, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var someContent = bytes.Repeat([]byte("some content "), 400)[:4096]

// TestVMCryptsetupOpensOurs: cryptsetup maps what we created, with its own tables, and reads what we wrote.
func TestVMCryptsetupOpensOurs(t *testing.T) {
	for name, config := range layouts {
		t.Run(name, func(t *testing.T) {
			v := volumes(openControl(t))
			blank(t, diskA)
			if err := v.Create(t.Context(), config, diskA, Zeros{}); err != nil {
				t.Fatal(err)
			}
			o, err := v.Open(t.Context(), config, diskA)
			if err != nil {
				t.Fatal(err)
			}
			writeDisk(t, o.Path, 1<<20, someContent)
			size := o.Size
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			cryptsetup(t, "open", "--type", "luks2", "--key-file", keyOnDisk(t), diskA, "vm-reference")
			got, err := readDisk("/dev/mapper/vm-reference", 1<<20, 4096)
			last, err2 := readDisk("/dev/mapper/vm-reference", size-4096, 4096)
			cryptsetup(t, "close", "vm-reference")
			if err != nil || !bytes.Equal(got, someContent) || err2 != nil || len(bytes.Trim(last, "\x00")) > 0 {
				t.Errorf("cryptsetup reads something else: %v, %v", err, err2)
			}
		})
	}
}

// TestVMOpenCryptsetups: we map what cryptsetup created and read what it wrote through its own mapping. AEGIS it only
// creates where the kernel offers AF_ALG for it, which this guest's does not.
func TestVMOpenCryptsetups(t *testing.T) {
	luks2 := func(cipher, integrity string, sectorSize int) luks.Layout {
		return luks.Layout{Type: luks.TypeLUKS2, Cipher: cipher, Integrity: integrity, SectorSize: sectorSize, Offset: volumeOffset}
	}
	for name, tt := range map[string]struct {
		args   string
		layout luks.Layout
	}{
		"luks1":            {"--type luks1 --cipher aes-xts-plain64 --key-size 512 --hash sha256", luks.Layout{Type: luks.TypeLUKS1, Cipher: luks.CipherAESXTS, SectorSize: 512, Offset: 2 * volumeOffset}},
		"plain, 512 bytes": {"--type luks2 --cipher aes-xts-plain64 --key-size 512 --sector-size 512", luks2(luks.CipherAESXTS, "", 512)},
		"plain":            {"--type luks2 --cipher aes-xts-plain64 --key-size 512 --sector-size 4096", luks2(luks.CipherAESXTS, "", 4096)},
		"hmac":             {"--type luks2 --cipher aes-xts-plain64 --key-size 512 --integrity hmac-sha256 --sector-size 4096 --integrity-no-wipe", luks2(luks.CipherAESXTS, luks.IntegrityHMACSHA256, 4096)},
	} {
		t.Run(name, func(t *testing.T) {
			blank(t, diskA)
			key := keyOnDisk(t)
			args := append([]string{"luksFormat"}, strings.Fields(tt.args)...)
			args = append(args, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--offset", strconv.FormatUint(tt.layout.Offset/devmapper.SectorSize, 10), diskA, key)
			cryptsetup(t, args...)
			cryptsetup(t, "open", "--key-file", key, diskA, "vm-reference")
			writeDisk(t, "/dev/mapper/vm-reference", 1<<20, someContent)
			cryptsetup(t, "close", "vm-reference")

			config := VolumeConfig{Name: "vol", Key: "kbs:///a/b/c", Expect: luks.Expect{Layout: tt.layout}}
			o, err := volumes(openControl(t)).Open(t.Context(), config, diskA)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readDisk(o.Path, 1<<20, 4096)
			if err = errors.Join(err, o.Close()); err != nil || !bytes.Equal(got, someContent) {
				t.Errorf("we read something else: %v", err)
			}
			config.Expect.OwnHeader = true
			if _, err := volumes(openControl(t)).Open(t.Context(), config, diskA); err == nil {
				t.Error("it opened as one of our own")
			}
		})
	}
}

// TestVMCryptsetupStatus: what kata's tests of encrypted emptyDirs look for, as far as Debian's cryptsetup 2.6.1 shows
// it for a mapping whose header it does not see: the integrity is not among it.
func TestVMCryptsetupStatus(t *testing.T) {
	scratch(t, openControl(t), devmapper.AESXTSHMACSHA256)
	out := cryptsetup(t, "status", "vm-scratch")
	for _, want := range []string{`is active`, `type: +n/a`, `cipher: +aes-xts-plain64`, `keysize: +768 bits`, `device: +/dev/vdb`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
