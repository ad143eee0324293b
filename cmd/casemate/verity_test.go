// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/verity"
)

// pinned writes 20 blocks of data and a tree behind its superblock.
func pinned(t *testing.T) (data, hash string, pin verity.Pin) {
	t.Helper()
	dir := t.TempDir()
	data, hash = filepath.Join(dir, "data"), filepath.Join(dir, "hash")
	if err := os.WriteFile(data, bytes.Repeat([]byte("0123456789abcdef"), 20*4096/16), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(hash)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := verity.Params{HashType: 1, Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 20, HashOffset: 4096}
	superblock, err := verity.Superblock{Params: p}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteAt(superblock, 0); err != nil {
		t.Fatal(err)
	}
	root, err := verity.Build(t.Context(), in, out, p)
	if err != nil {
		t.Fatal(err)
	}
	return data, hash, verity.Pin{Params: p, RootHash: root}
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerityCheck(t *testing.T) {
	data, hash, pin := pinned(t)
	check := func(text string) error {
		return runVerity(t.Context(), []string{"check", "--pin", text, data, hash})
	}
	if err := check(pin.Text()); err != nil {
		t.Fatal(err)
	}
	if err := runVerity(t.Context(), []string{"check", data, hash}); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "superblock proves nothing") {
		t.Errorf("without a pin: got %v", err)
	}
	flip(t, hash, 88+3) // the superblock's salt field
	if err := check(pin.Text()); err == nil || errors.Is(err, verity.ErrMismatch) {
		t.Errorf("superblock that says otherwise: got %v", err)
	}
	flip(t, hash, 88+3)
	flip(t, data, 7*4096+1)
	if m, ok := errors.AsType[*verity.Mismatch](check(pin.Text())); !ok || m.Block != 7 {
		t.Errorf("flipped data: got %v", m)
	}
	for _, args := range [][]string{nil, {"format"}, {"open", "--pin", pin.Text(), "name"}, {"close"}} {
		if err := runVerity(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want %v", args, err, errUsage)
		}
	}
}
