// SPDX-License-Identifier: Apache-2.0

//go:build vm

package devmapper

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// signedRoot is a signature over the text of signedTree's root hash, without the signer's certificate, by the key in
// /usr/share/ovmf/PkKek-1-snakeoil.key of Debian's package ovmf (passphrase: snakeoil):
//
//	openssl smime -sign -nocerts -noattr -binary -in TEXT -inkey KEY -signer PkKek-1-snakeoil.pem -outform der
const signedRoot = "MIIBxQYJKoZIhvcNAQcCoIIBtjCCAbICAQExDzANBglghkgBZQMEAgEFADALBgkqhkiG9w0BBwExggGNMIIBiQIBATBiMEoxCzAJBgNVBAYTAlVTMREwDwYD" +
	"VQQIDAhDb2xvcmFkbzEVMBMGA1UEBwwMRm9ydCBDb2xsaW5zMREwDwYDVQQKDAhTbmFrZU9pbAIULTs+L+8XzClMGhAvyFIdsp/PYgUwDQYJYIZIAWUDBAIB" +
	"BQAwDQYJKoZIhvcNAQEBBQAEggEALliKMmTAvXUYhwr1ePt0CBIlDJ6bKKIuXuIYsRuAEiDxdkb6lPOrNFcw0VG+PSUPjQ+Hc3klho55CLFwFVzUNrHdxpiY" +
	"PkHKxX3FcrGQfQet76+KTqJoP2SolWjwktdDuwfi2VM9eVrr68w3Tk4K9l/xHwSeokHQVnn4rFyl+cs2tx74/jkdX0eGl9CHZE5lwbjCEoeavS4eSifR+iAA" +
	"cX/GVEfpgNh1DoGOrrGZH5ihpgLY7q7L9dSgKczieZZzdx0/LFXEXHbYTP98zvs/VJNZaK+sdGFjcK7WyeaTZxSnA1jSyLIj7ne/pPjS5DRLk6IwdooXTPI6" +
	"ATOmZeZb9g=="

// signedTree writes the blocks that were signed to diskA and their tree to diskB.
func signedTree(t *testing.T) Verity {
	t.Helper()
	const blockSize, blocks = 4096, 16
	salt := []byte("salt of the test")
	hash := func(b []byte) []byte {
		sum := sha256.Sum256(append(bytes.Clone(salt), b...))
		return sum[:]
	}
	tree := make([]byte, 0, blockSize)
	for i := range blocks {
		block := make([]byte, blockSize)
		for j := range block {
			block[j] = byte(i + j/16)
		}
		writeAt(t, diskA, int64(i*blockSize), block)
		tree = append(tree, hash(block)...)
	}
	writeAt(t, diskB, blockSize, tree[:blockSize])
	return Verity{HashType: 1, DataDevice: diskA, HashDevice: diskB, DataBlockSize: blockSize, HashBlockSize: blockSize,
		DataBlocks: blocks, HashStartBlock: 1, Algorithm: "sha256", RootHash: hash(tree[:blockSize]), Salt: salt}
}

func signature(t *testing.T) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(signedRoot)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVMRootHashSignature: the kernel sees the signature, and nothing comes up with one that it does not accept, the
// right root hash notwithstanding. Who signed is a key that this guest's kernel has never heard of.
func TestVMRootHashSignature(t *testing.T) {
	c := openControl(t)
	table := signedTree(t)
	for _, tt := range []struct {
		name      string
		signature []byte
		want      error
	}{
		{"by a stranger", signature(t), unix.ENOKEY},
		{"no signature at all", []byte("not PKCS #7"), unix.EBADMSG},
		{"cut short", signature(t)[:200], unix.EBADMSG},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table.Signature = tt.signature
			_, err := c.Create(Mapping{Name: "vm-signed", ReadOnly: true, Targets: []Target{table}})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, err := c.Status("vm-signed"); !errors.Is(err, unix.ENXIO) {
				t.Errorf("a mapping stayed: %v", err)
			}
			noKeyStays(t)
		})
	}
}

// noKeyStays waits for the kernel to forget the key.
func noKeyStays(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		keys, err := os.ReadFile("/proc/keys")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(keys, []byte("casemate-verity-")) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a key stays:\n%s", keys)
		}
	}
}

// TestTrustedRootHashSignature is run in a guest whose firmware holds the signer's certificate in its db, and so its
// kernel in the platform keyring. The signature is over this root hash's text and over no other's.
func TestTrustedRootHashSignature(t *testing.T) {
	c := openControl(t)
	table := signedTree(t)
	table.Signature = signature(t)
	d := create(t, c, Mapping{Name: "vm-signed", ReadOnly: true, Targets: []Target{table}})
	if got, err := readAt(d.Path, 4096, 16); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{1}, 16)) {
		t.Errorf("reading: % x, %v", got, err)
	}
	noKeyStays(t)
	for name, change := range map[string]func(v *Verity){
		"another root hash": func(v *Verity) { v.RootHash[0] ^= 1 },
		"a changed signature": func(v *Verity) {
			v.Signature = bytes.Clone(v.Signature)
			v.Signature[len(v.Signature)-1] ^= 1
		},
	} {
		bad := table
		bad.RootHash = bytes.Clone(table.RootHash)
		change(&bad)
		if _, err := c.Create(Mapping{Name: "vm-signed-2", ReadOnly: true, Targets: []Target{bad}}); !errors.Is(err, unix.EKEYREJECTED) {
			t.Errorf("%s: got %v, want %v", name, err, unix.EKEYREJECTED)
		}
	}
}
