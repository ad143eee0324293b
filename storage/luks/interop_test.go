// SPDX-License-Identifier: Apache-2.0

//go:build interop

package luks

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cryptsetup runs the reference with a key file and returns what it prints.
func cryptsetup(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("cryptsetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func file(t *testing.T, name string, size int64, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// dumpedKey is the volume key as cryptsetup unlocks it.
func dumpedKey(t *testing.T, header, keyFile string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "volume-key")
	cryptsetup(t, "luksDump", "-q", "--dump-volume-key", "--volume-key-file", out, "--key-file", keyFile, header)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openFile(t *testing.T, path string, pass []byte, want Expect) *Volume {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Open(context.Background(), f, pass, want)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// costs are each KDF at a low price, for us and for cryptsetup.
var costs = map[Cost][]string{
	cheap: {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
	{KDF: KDFArgon2id, Passes: 4, MemoryKiB: 64, Lanes: 2}: {"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "1"},
	{KDF: KDFArgon2i, Passes: 4, MemoryKiB: 64, Lanes: 1}:  {"--pbkdf", "argon2i", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "1"},
}

// What we create is cryptsetup's to read: its dump, its unlocking, its volume key; and after it has added a
// passphrase of its own, ours and the token still hold.
func TestCryptsetupOpensOurs(t *testing.T) {
	for cost := range costs {
		for i, l := range layouts() {
			t.Run(fmt.Sprintf("%s/%d", cost.KDF, i), func(t *testing.T) {
				if l.Size != 0 {
					l.Size = 1 << 20
				}
				size := int64(DefaultOffset + 4<<20)
				if !l.Detached {
					l.Offset = DefaultOffset
				} else {
					size = 0
				}
				path, keyFile := file(t, "disk", size, nil), file(t, "key", 0, passphrase)
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				v, err := Create(f, l, passphrase, cost)
				if err != nil {
					t.Fatal(err)
				}
				dump := cryptsetup(t, "luksDump", path)
				for _, want := range []string{v.UUID, l.Cipher, "casemate-header", strconv.Itoa(l.SectorSize) + " [bytes]", fmt.Sprintf("offset: %d [bytes]", l.Offset), l.Integrity} {
					if !strings.Contains(dump, want) {
						t.Errorf("luksDump does not show %q:\n%s", want, dump)
					}
				}
				cryptsetup(t, "open", "--test-passphrase", "--key-file", keyFile, path)
				if got := dumpedKey(t, path, keyFile); !bytes.Equal(got, v.Key) {
					t.Errorf("cryptsetup finds another volume key of %d bytes, want %d", len(got), len(v.Key))
				}
				second := file(t, "second", 0, []byte("second"))
				cryptsetup(t, append([]string{"luksAddKey", "-q", "--key-file", keyFile, path, second}, costs[cheap]...)...)
				for _, pass := range [][]byte{passphrase, []byte("second")} {
					if got := openFile(t, path, pass, Expect{Layout: l, OwnHeader: true}); !bytes.Equal(got.Key, v.Key) {
						t.Errorf("another volume key after luksAddKey")
					}
				}
			})
		}
	}
}

func TestCryptsetupOpensOurLUKS1(t *testing.T) {
	path, keyFile := file(t, "disk", LUKS1Offset+1<<20, nil), file(t, "key", 0, passphrase)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := CreateLUKS1(f, passphrase, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if dump := cryptsetup(t, "luksDump", path); !strings.Contains(dump, v.UUID) || !strings.Contains(dump, "xts-plain64") {
		t.Errorf("luksDump:\n%s", dump)
	}
	cryptsetup(t, "open", "--test-passphrase", "--key-file", keyFile, path)
	if !bytes.Equal(dumpedKey(t, path, keyFile), v.Key) {
		t.Error("cryptsetup finds another volume key")
	}
	second := file(t, "second", 0, []byte("second"))
	cryptsetup(t, "luksAddKey", "-q", "--key-file", keyFile, "--pbkdf-force-iterations", "1000", path, second)
	if got := openFile(t, path, []byte("second"), Expect{Layout: mkcwLayout()}); !bytes.Equal(got.Key, v.Key) {
		t.Error("another volume key after luksAddKey")
	}
}

// What cryptsetup creates opens with us and gives the volume key that cryptsetup finds.
func TestOursOpensCryptsetups(t *testing.T) {
	type format struct {
		name   string
		args   []string
		layout Layout
	}
	var formats []format
	for cost, args := range costs {
		for _, sectorSize := range []int{512, 4096} {
			for _, detached := range []bool{false, true} {
				l := Layout{Type: TypeLUKS2, Cipher: CipherAESXTS, SectorSize: sectorSize, Offset: DefaultOffset, Detached: detached}
				if detached {
					l.Offset = 0
				}
				formats = append(formats, format{fmt.Sprintf("luks2 %s %d %v", cost.KDF, sectorSize, detached),
					append([]string{"--type", "luks2", "--sector-size", strconv.Itoa(sectorSize)}, args...), l})
			}
		}
	}
	plain := Layout{Type: TypeLUKS2, Cipher: CipherAESXTS, SectorSize: 512, Offset: DefaultOffset}
	for name, extra := range map[string][]string{
		"sha512":        {"--hash", "sha512"},
		"metadata size": {"--luks2-metadata-size", "64k"},
		"label":         {"--label", "data", "--subsystem", "x"},
	} {
		formats = append(formats, format{"luks2 " + name, append(append([]string{"--type", "luks2", "--sector-size", "512"}, extra...), costs[cheap]...), plain})
	}
	for _, hash := range []string{"sha1", "sha256", "sha512"} {
		for _, detached := range []bool{false, true} {
			l := Layout{Type: TypeLUKS1, Cipher: CipherAESXTS, SectorSize: 512, Offset: 2 << 20, Detached: detached}
			if detached {
				l.Offset = 0
			}
			formats = append(formats, format{fmt.Sprintf("luks1 %s %v", hash, detached),
				[]string{"--type", "luks1", "--hash", hash, "--cipher", "aes-xts-plain64", "--key-size", "512", "--pbkdf-force-iterations", "1000"}, l})
		}
	}
	for _, tt := range formats {
		t.Run(tt.name, func(t *testing.T) {
			path, keyFile := file(t, "disk", DefaultOffset+4<<20, nil), file(t, "key", 0, passphrase)
			header := path
			args := append([]string{"luksFormat", "-q", "--key-file", keyFile}, tt.args...)
			if tt.layout.Detached {
				header = filepath.Join(t.TempDir(), "header")
				args = append(args, "--header", header)
			}
			cryptsetup(t, append(args, path)...)
			v := openFile(t, header, passphrase, Expect{Layout: tt.layout})
			if want := dumpedKey(t, header, keyFile); !bytes.Equal(v.Key, want) {
				t.Errorf("volume key has another value than cryptsetup's")
			}
			if got := strings.TrimSpace(cryptsetup(t, "luksUUID", header)); got != v.UUID {
				t.Errorf("UUID %s, want %s", v.UUID, got)
			}
			f, err := os.Open(header)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := Open(context.Background(), f, []byte("wrong"), Expect{Layout: tt.layout}); err == nil || !strings.HasSuffix(err.Error(), ErrWrongKey.Error()) {
				t.Errorf("wrong passphrase: %v", err)
			}
		})
	}
}

// A backup of our header, taken by cryptsetup, serves as a detached one.
func TestHeaderBackup(t *testing.T) {
	l := attached()
	d, v := create(t, l)
	path := file(t, "disk", 0, d.b)
	backup := filepath.Join(t.TempDir(), "backup")
	cryptsetup(t, "luksHeaderBackup", "--header-backup-file", backup, path)
	l.Detached = true
	if got := openFile(t, backup, passphrase, Expect{Layout: l, OwnHeader: true}); !bytes.Equal(got.Key, v.Key) {
		t.Error("the backup gives another volume key")
	}
}

// Sound headers of cryptsetup with ciphers that are not offered. (It makes no header with the null cipher where the
// kernel has no device-mapper; TestHostileMetadata has that one.)
func TestCryptsetupsWeakHeaders(t *testing.T) {
	for name, args := range map[string][]string{
		"cbc": {"--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"},
		"128": {"--cipher", "aes-xts-plain64", "--key-size", "256"},
	} {
		for _, kind := range []string{TypeLUKS1, TypeLUKS2} {
			path, keyFile := file(t, "disk", DefaultOffset+4<<20, nil), file(t, "key", 0, passphrase)
			cost := costs[cheap]
			if kind == TypeLUKS1 {
				cost = cost[2:]
			}
			cryptsetup(t, append(append([]string{"luksFormat", "-q", "--key-file", keyFile, "--type", kind, path}, args...), cost...)...)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			l := Layout{Type: kind, Cipher: CipherAESXTS, SectorSize: 512, Offset: DefaultOffset}
			_, err = Open(context.Background(), f, passphrase, Expect{Layout: l})
			if err == nil || !strings.Contains(err.Error(), "cipher") && !strings.Contains(err.Error(), "key of") {
				t.Errorf("%s %s: %v", kind, name, err)
			}
			f.Close()
		}
	}
}
