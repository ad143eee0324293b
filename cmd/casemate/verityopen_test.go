// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/storage/devmapper"
)

func TestVerityOpenTarget(t *testing.T) {
	data, hash, pin := pinned(t) // a tree of one block at 4096
	dir := t.TempDir()
	fec, signature, long := filepath.Join(dir, "fec"), filepath.Join(dir, "signature"), filepath.Join(dir, "long")
	for name, b := range map[string][]byte{fec: nil, signature: []byte("pkcs7"), long: make([]byte, maxSignature+1)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(hash, link); err != nil {
		t.Fatal(err)
	}
	separate := &devmapper.VerityFEC{Device: fec, Blocks: 21, Roots: 2}
	for _, tt := range []struct {
		name      string
		flags     []string
		fec       *devmapper.VerityFEC
		signature string
		fails     bool
		is        error
	}{
		{name: "plain"},
		{name: "parity", flags: []string{"--fec-device", fec}, fec: separate},
		{name: "parity and a signature", flags: []string{"--fec-device", fec, "--root-hash-signature", signature}, fec: separate, signature: "pkcs7"},
		{name: "parity further on", flags: []string{"--fec-device", fec, "--fec-offset", "8192", "--fec-roots", "24"}, fec: &devmapper.VerityFEC{Device: fec, StartBlock: 2, Blocks: 21, Roots: 24}},
		{name: "parity behind the tree", flags: []string{"--fec-device", hash, "--fec-offset", "8192"}, fec: &devmapper.VerityFEC{Device: hash, StartBlock: 2, Blocks: 21, Roots: 2}},
		{name: "parity behind the tree, another name", flags: []string{"--fec-device", link, "--fec-offset", "8192"}, fec: &devmapper.VerityFEC{Device: link, StartBlock: 2, Blocks: 21, Roots: 2}},
		{name: "parity over the tree", flags: []string{"--fec-device", hash, "--fec-offset", "4096"}, fails: true},
		{name: "parity over the superblock", flags: []string{"--fec-device", hash}, fails: true},
		{name: "parity off a block", flags: []string{"--fec-device", fec, "--fec-offset", "512"}, fails: true},
		{name: "no such parity", flags: []string{"--fec-device", fec + "x"}, is: fs.ErrNotExist},
		{name: "offset without parity", flags: []string{"--fec-offset", "4096"}, is: errUsage},
		{name: "roots without parity", flags: []string{"--fec-roots", "3"}, is: errUsage},
		{name: "no such signature", flags: []string{"--root-hash-signature", signature + "x"}, is: fs.ErrNotExist},
		{name: "empty signature", flags: []string{"--root-hash-signature", fec}, fails: true},
		{name: "long signature", flags: []string{"--root-hash-signature", long}, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseVerityOpen(append(append([]string{"--pin", pin.Text()}, tt.flags...), "name", data, hash))
			var got devmapper.Verity
			if err == nil {
				got, err = s.target()
			}
			if tt.fails || tt.is != nil {
				if err == nil || tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (got.FEC == nil) != (tt.fec == nil) || tt.fec != nil && *got.FEC != *tt.fec || string(got.Signature) != tt.signature {
				t.Errorf("parity %+v, signature %q", got.FEC, got.Signature)
			}
			if got.DataDevice != data || got.HashDevice != hash || !bytes.Equal(got.RootHash, pin.RootHash) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
