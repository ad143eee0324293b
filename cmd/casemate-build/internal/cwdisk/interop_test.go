// SPDX-License-Identifier: Apache-2.0

//go:build interop

package cwdisk

import (
	"bytes"
	"crypto/aes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"github.com/casemate/casemate/storage/krun"
	"github.com/casemate/casemate/storage/luks"
	"github.com/casemate/casemate/verity"
)

const imageConfig = `{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":[]}}`

// options makes a root directory and says what a disk is made of.
func options(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	config := filepath.Join(dir, `a "config"`)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.WriteFile(filepath.Join(root, "bin/sh"), bytes.Repeat([]byte("sh"), 3<<19), 0o755),
		os.Symlink("sh", filepath.Join(root, "bin/ash")), os.WriteFile(config, []byte(imageConfig), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return Options{Root: root, ImageConfig: config, Slop: 25, Passphrase: bytes.Repeat([]byte("0f"), 32), Trailer: krun.Trailer{
		TEE: "snp", TEEData: `{"gen":"milan"}`, WorkloadID: "w", CPUs: 2, RAMMiB: 512, AttestationURL: "https://kbs.example",
	}}
}

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

// TestInteropDisks: cryptsetup opens both forms with the passphrase, the trailer is the last thing on the disk, and what
// is inside is a sound ext4 with the tree and the config.
func TestInteropDisks(t *testing.T) {
	for _, tt := range []struct {
		form, kind string
		layout     luks.Layout
	}{
		{"mkcw", "luks1", luks.Layout{Type: luks.TypeLUKS1, Cipher: luks.CipherAESXTS, SectorSize: 512, Offset: luks.LUKS1Offset}},
		{"verity", "luks2", VerityLayout()},
	} {
		t.Run(tt.form, func(t *testing.T) {
			o := options(t)
			o.Verity = tt.form == "verity"
			out := filepath.Join(t.TempDir(), "disk.img")
			made, err := Write(t.Context(), out, o)
			if err != nil {
				t.Fatal(err)
			}
			key := filepath.Join(t.TempDir(), "key")
			for pass, opens := range map[string]bool{string(o.Passphrase): true, "another": false} {
				if err := os.WriteFile(key, []byte(pass), 0o600); err != nil {
					t.Fatal(err)
				}
				if out, err := command(t, "cryptsetup", "open", "--test-passphrase", "--type", tt.kind, "--key-file", key, out); (err == nil) != opens {
					t.Errorf("cryptsetup with %q: %v: %s", pass, err, out)
				}
			}
			disk, err := os.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			info, err := disk.Stat()
			if err != nil || info.Size() != made.Size || made.Size%4096 != 0 || info.Mode().Perm() != 0o600 {
				t.Errorf("%d bytes, mode %v, %v, want %d", info.Size(), info.Mode(), err, made.Size)
			}
			if got, err := krun.ReadTrailer(disk, made.Size); err != nil || got != o.Trailer {
				t.Errorf("trailer %+v, %v", got, err)
			}
			inside := decrypted(t, disk, made.Size, tt.layout, o)
			checkInside(t, inside, made.Pin)
			if names, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); err != nil || len(names) != 1 {
				t.Errorf("left beside the disk: %q, %v", names, err)
			}
			if _, err := Write(t.Context(), out, o); err == nil {
				t.Error("the disk was written over")
			}
		})
	}
}

// decrypted is what dm-crypt shows, in a file.
func decrypted(t *testing.T, disk *os.File, size int64, layout luks.Layout, o Options) string {
	t.Helper()
	v, err := luks.Open(t.Context(), disk, o.Passphrase, luks.Expect{Layout: layout, OwnHeader: o.Verity})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	b := make([]byte, size-int64(v.Offset))
	if _, err := disk.ReadAt(b, int64(v.Offset)); err != nil {
		t.Fatal(err)
	}
	cipher, err := xts.NewCipher(aes.NewCipher, v.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += v.SectorSize {
		cipher.Decrypt(b[i:i+v.SectorSize], b[i:i+v.SectorSize], uint64(i/512))
	}
	path := filepath.Join(t.TempDir(), "inside")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func checkInside(t *testing.T, inside string, pin *verity.Pin) {
	t.Helper()
	if out, err := command(t, "e2fsck", "-fn", inside); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
	for path, want := range map[string]string{"/" + ConfigName: imageConfig, "/bin/sh": strings.Repeat("sh", 3<<19)} {
		if out, err := exec.Command("debugfs", "-R", "cat "+path, inside).Output(); err != nil || string(out) != want {
			t.Errorf("%s has %d bytes, %v, want %d", path, len(out), err, len(want))
		}
	}
	if out, err := command(t, "debugfs", "-R", "stat /"+ConfigName, inside); err != nil || !strings.Contains(out, "Mode:  0600") {
		t.Errorf("%v: %s", err, out)
	}
	if pin == nil {
		return
	}
	f, err := os.OpenFile(inside, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := verity.Check(t.Context(), f, f, *pin); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt([]byte{1}, 12345); err != nil {
		t.Fatal(err)
	}
	if err := verity.Check(t.Context(), f, f, *pin); err == nil {
		t.Error("a changed byte matches the tree")
	}
}

// TestInteropRefused: what cannot become a disk leaves none.
func TestInteropRefused(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, o *Options){
		"no directory":        func(_ *testing.T, o *Options) { o.Root += "/none" },
		"no config":           func(_ *testing.T, o *Options) { o.ImageConfig = "" },
		"config of no image":  func(t *testing.T, o *Options) { replace(t, o.ImageConfig, `{"config":[]}`) },
		"config that is none": func(t *testing.T, o *Options) { replace(t, o.ImageConfig, `config`) },
		"two configs":         func(t *testing.T, o *Options) { replace(t, filepath.Join(o.Root, ConfigName), imageConfig) },
		"no workload":         func(_ *testing.T, o *Options) { o.Trailer.WorkloadID = "" },
		"another TEE":         func(_ *testing.T, o *Options) { o.Trailer.TEE = "tdx" },
		"empty passphrase":    func(_ *testing.T, o *Options) { o.Passphrase = nil },
		"negative slop":       func(_ *testing.T, o *Options) { o.Slop = -1 },
	} {
		o := options(t)
		change(t, &o)
		out := filepath.Join(t.TempDir(), "disk.img")
		if _, err := Write(t.Context(), out, o); err == nil {
			t.Errorf("%s: written", name)
		}
		left, err := os.ReadDir(filepath.Dir(out))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), fs.FileMode(0o644)); err != nil {
		t.Fatal(err)
	}
}
