// SPDX-License-Identifier: Apache-2.0

//go:build vm

package devmapper

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

const (
	diskC     = "/dev/vdc"
	fecBlock  = 4096
	fecBlocks = 1000 // of data: a tree of 8 blocks, and one above
	fecEnd    = 64   // blocks of the tree's device that are covered
)

var printedRoot = regexp.MustCompile(`(?m)^Root hash:\s*([0-9a-f]+)$`)

// parity lets veritysetup make a tree on a device over random data on diskA, and parity on fec.
func parity(t *testing.T, tree string, fec VerityFEC) (Verity, []byte) {
	t.Helper()
	data := make([]byte, fecBlocks*fecBlock)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	writeAt(t, diskA, 0, data)
	out, err := exec.Command("/usr/sbin/veritysetup", "format", "--salt", "-", "--data-blocks", strconv.Itoa(fecBlocks), "--fec-device", fec.Device,
		"--fec-offset", strconv.FormatUint(fec.StartBlock*fecBlock, 10), "--fec-roots", strconv.Itoa(fec.Roots), diskA, tree).CombinedOutput()
	m := printedRoot.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("veritysetup: %v: %s", err, out)
	}
	root, err := hex.DecodeString(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return Verity{HashType: 1, DataDevice: diskA, HashDevice: tree, DataBlockSize: fecBlock, HashBlockSize: fecBlock,
		DataBlocks: fecBlocks, HashStartBlock: 1, Algorithm: "sha256", RootHash: root, FEC: &fec}, data
}

// damage overwrites whole blocks of a disk with noise.
func damage(t *testing.T, disk string, blocks ...int64) {
	t.Helper()
	noise := make([]byte, fecBlock)
	for _, b := range blocks {
		if _, err := rand.Read(noise); err != nil {
			t.Fatal(err)
		}
		writeAt(t, disk, b*fecBlock, noise)
	}
}

// TestVMVerityParity: blocks of data and tree that the host has overwritten read as they were, as many as the parity
// can give back; more of them, or with parity that is the host's, are errors and never something else.
func TestVMVerityParity(t *testing.T) {
	t.Cleanup(func() { zero(t, diskC, 5<<20) }) // others expect zeros there
	for _, tt := range []struct {
		name string
		fec  VerityFEC
	}{
		{"on a disk of its own", VerityFEC{Device: diskC, Roots: 2, Blocks: fecBlocks + fecEnd - 1}},
		{"behind the tree", VerityFEC{Device: diskB, StartBlock: fecEnd, Roots: 5, Blocks: fecBlocks + fecEnd - 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := openControl(t)
			device := diskB
			if tt.fec.Device != diskB { // all of the tree's device is covered: a short one
				part := Linear{LengthSectors: fecEnd * fecBlock / SectorSize, Device: diskB}
				device = create(t, c, Mapping{Name: "vm-fec-tree", Targets: []Target{part}}).Path
			}
			table, data := parity(t, device, tt.fec)
			open := func(name string) (read func(block int64) error) {
				d := create(t, c, Mapping{Name: name, ReadOnly: true, Targets: []Target{table}})
				return func(block int64) error {
					got, err := readAt(d.Path, block*fecBlock, fecBlock)
					if err == nil && !bytes.Equal(got, data[block*fecBlock:][:fecBlock]) {
						t.Errorf("block %d reads as something else", block)
					}
					return err
				}
			}
			// Blocks of one word lie so many blocks apart: no word loses more than two here.
			rounds := int64(tt.fec.Blocks+uint64(255-tt.fec.Roots)-1) / int64(255-tt.fec.Roots)
			tree, err := readAt(device, 0, fecEnd*fecBlock)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, diskA, 7, 7+rounds, 499)
			damage(t, device, 1, 4) // the top of the tree, and digests of blocks 256 to 383
			read := open("vm-fec")
			for _, block := range []int64{0, 7, 7 + rounds, 300, 499, 999} {
				if err := read(block); err != nil {
					t.Errorf("block %d: %v", block, err)
				}
			}
			var many []int64
			for i := range int64(tt.fec.Roots) + 1 {
				many = append(many, 20+i*rounds)
			}
			writeAt(t, device, 0, tree)
			damage(t, diskA, many...)
			read = open("vm-fec-many") // the first mapping remembers blocks that it has read
			for _, block := range many {
				if err := read(block); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("block %d, one of %d damaged: %v", block, len(many), err)
				}
			}
			if err := read(21); err != nil {
				t.Errorf("block 21: %v", err)
			}

			noise := make([]byte, 4<<20)
			if _, err := rand.Read(noise); err != nil {
				t.Fatal(err)
			}
			writeAt(t, tt.fec.Device, int64(tt.fec.StartBlock)*fecBlock, noise)
			read = open("vm-fec-hostile")
			if err := read(7); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("parity of the host's own: block 7: %v", err)
			}
			if err := read(8); err != nil {
				t.Errorf("parity of the host's own: block 8, which needs none: %v", err)
			}
		})
	}
}

// TestVMVerityParityOfNoDevice leaves nothing behind.
func TestVMVerityParityOfNoDevice(t *testing.T) {
	c := openControl(t)
	table := Verity{HashType: 1, DataDevice: diskA, HashDevice: diskB, DataBlockSize: fecBlock, HashBlockSize: fecBlock, DataBlocks: 4,
		HashStartBlock: 1, Algorithm: "sha256", RootHash: make([]byte, 32), FEC: &VerityFEC{Device: "/dev/vdx", Roots: 2, Blocks: 100}}
	if _, err := c.Create(Mapping{Name: "vm-fec", ReadOnly: true, Targets: []Target{table}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat("/dev/mapper/vm-fec"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a node stayed: %v", err)
	}
}
