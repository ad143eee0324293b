// SPDX-License-Identifier: Apache-2.0

//go:build interop

package verity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

var rootLine = regexp.MustCompile(`(?m)^Root hash:\s*([0-9a-f]+)$`)

// combination is one way of making a tree.
type combination struct {
	Params
	superblock bool
}

func (c combination) String() string {
	return fmt.Sprintf("type %d %s salt %d data %dx%d hash %d superblock %v", c.HashType, c.Algorithm, len(c.Salt), c.DataBlocks, c.DataBlockSize, c.HashBlockSize, c.superblock)
}

func (c combination) arguments() []string {
	salt := "-"
	if len(c.Salt) > 0 {
		salt = hex.EncodeToString(c.Salt)
	}
	args := []string{
		"--format", strconv.Itoa(c.HashType), "--hash", c.Algorithm, "--salt", salt,
		"--data-block-size", strconv.Itoa(c.DataBlockSize), "--hash-block-size", strconv.Itoa(c.HashBlockSize),
		"--data-blocks", strconv.FormatUint(c.DataBlocks, 10),
	}
	if !c.superblock {
		return append(args, "--no-superblock")
	}
	return append(args, "--uuid", "00010203-0405-0607-0809-0a0b0c0d0e0f")
}

func combinations() []combination {
	var list []combination
	add := func(algorithm string, hashType, salt, dataBlock, hashBlock int, blocks uint64, superblock bool) {
		c := combination{Params{HashType: hashType, Algorithm: algorithm, Salt: noise(salt, uint64(salt)), DataBlockSize: dataBlock, HashBlockSize: hashBlock, DataBlocks: blocks}, superblock}
		if superblock {
			c.HashOffset = TreeOffset(hashBlock)
		}
		list = append(list, c)
	}
	for _, algorithm := range []string{"sha256", "sha384", "sha512"} {
		for hashType := range 2 {
			for _, superblock := range []bool{true, false} {
				add(algorithm, hashType, 32, 4096, 4096, 700, superblock)
				add(algorithm, hashType, 0, 1024, 512, 333, superblock)
			}
		}
	}
	for _, blocks := range []uint64{1, 2, 127, 128, 129, 128*128 - 1, 128 * 128, 128*128 + 1} {
		add("sha256", 1, 32, 512, 4096, blocks, true)
	}
	for _, salt := range []int{0, 1, 31, 64, 255, 256} {
		add("sha256", 1, salt, 4096, 4096, 50, true)
	}
	for _, size := range []int{512, 1024, 2048, 4096} {
		add("sha256", 1, 32, size, 512, 100, true)
		add("sha256", 1, 32, 512, size, 100, false)
	}
	return list
}

// TestInteropVeritysetup: trees, superblocks and roots are veritysetup's to the
// byte; each verifies what the other made, and neither takes a flipped bit.
func TestInteropVeritysetup(t *testing.T) {
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			dir := t.TempDir()
			data := noise(int(c.DataBlocks)*c.DataBlockSize, 7)
			dataFile, theirs, ours := filepath.Join(dir, "data"), filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
			write(t, dataFile, data)
			write(t, theirs, nil)
			out := veritysetup(t, append([]string{"format", dataFile, theirs}, c.arguments()...)...)
			m := rootLine.FindSubmatch(out)
			if m == nil {
				t.Fatalf("veritysetup printed no root hash: %s", out)
			}
			tree, pin := build(t, data, c.Params)
			if c.superblock {
				sb, err := Superblock{UUID: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Params: c.Params}.Encode()
				if err != nil {
					t.Fatal(err)
				}
				copy(tree, sb)
			}
			if got := hex.EncodeToString(pin.RootHash); got != string(m[1]) {
				t.Fatalf("root hash: got %s, want %s", got, m[1])
			}
			written, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(written, tree) {
				t.Fatalf("tree of %d bytes differs from veritysetup's of %d", len(tree), len(written))
			}
			if c.superblock {
				sb, err := ParseSuperblock(written)
				if err != nil {
					t.Fatal(err)
				}
				if err := pin.Repeats(sb.Params); err != nil {
					t.Error(err)
				}
			}
			if err := Check(t.Context(), data, memory(written), pin); err != nil {
				t.Error(err)
			}
			write(t, ours, tree)
			verify := append([]string{"verify", dataFile, ours, hex.EncodeToString(pin.RootHash)}, c.arguments()...)
			if c.superblock {
				verify = verify[:4] // the rest is in the superblock
			}
			veritysetup(t, verify...)
			flip := len(data) / 2
			data[flip] ^= 4
			write(t, dataFile, data)
			if err := exec.Command("veritysetup", verify...).Run(); err == nil {
				t.Error("veritysetup took a flipped bit: the test's oracle does not work")
			}
			if err := Check(t.Context(), data, tree, pin); !errors.Is(err, ErrMismatch) {
				t.Errorf("flipped bit: got %v", err)
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func veritysetup(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "veritysetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup %q: %v: %s", args, err, out)
	}
	return out
}
