// SPDX-License-Identifier: Apache-2.0

//go:build interop

package verity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// parityCode is Reed-Solomon over bytes with the field of 0x11d and the roots 1, 2, 4 and so on.
type parityCode struct {
	exp, log  [256]byte
	generator []byte // from the second highest power down
}

func newParityCode(roots int) *parityCode {
	c := &parityCode{}
	for i, x := 0, 1; i < 255; i++ {
		c.exp[i], c.log[x] = byte(x), byte(i)
		if x <<= 1; x > 255 {
			x ^= 0x11d
		}
	}
	g := []byte{1}
	for i := range roots {
		next := append(bytes.Clone(g), 0)
		for j, v := range g {
			next[j+1] ^= c.times(v, c.exp[i])
		}
		g = next
	}
	c.generator = g[1:]
	return c
}

func (c *parityCode) times(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return c.exp[(int(c.log[a])+int(c.log[b]))%255]
}

// parity divides the message by the generator.
func (c *parityCode) parity(message []byte) []byte {
	rest := make([]byte, len(c.generator))
	for _, m := range message {
		lead := m ^ rest[0]
		copy(rest, rest[1:])
		rest[len(rest)-1] = 0
		for i, g := range c.generator {
			rest[i] ^= c.times(lead, g)
		}
	}
	return rest
}

// encode makes all parity: the words of one round take their bytes from blocks that lie a round's number apart.
func encode(f FEC, blockSize int, covered []byte) []byte {
	n := wordSize - f.Roots
	rounds := int(f.Size(blockSize)) / f.Roots / blockSize
	code := newParityCode(f.Roots)
	var out []byte
	for round := range rounds {
		for b := range blockSize {
			word := make([]byte, n)
			for i := range word {
				if at := (i*rounds+round)*blockSize + b; at < len(covered) {
					word[i] = covered[at]
				}
			}
			out = append(out, code.parity(word)...)
		}
	}
	return out
}

// TestInteropParity: veritysetup's parity is that over exactly the bytes that FEC names, and as long.
func TestInteropParity(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		roots, block, dataCount int
		superblock, sameDevice  bool
		rest                    int // bytes behind the tree on a hash device of its own
	}{
		{"separate", 2, 4096, 300, true, false, 0},
		{"24 roots", 24, 4096, 40, true, false, 0},
		{"no superblock", 2, 4096, 129, false, false, 0},
		{"small blocks", 7, 512, 700, true, false, 0},
		{"something behind the tree", 2, 1024, 90, true, false, 3*1024 + 100},
		{"on the hash device", 2, 4096, 300, true, true, 0},
		{"on the hash device, small blocks", 3, 512, 100, false, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			data, hash, fec := filepath.Join(dir, "data"), filepath.Join(dir, "hash"), filepath.Join(dir, "fec")
			p := params(uint64(tt.dataCount))
			p.DataBlockSize, p.HashBlockSize = tt.block, tt.block
			args := []string{"format", "--salt", hex.EncodeToString(p.Salt), "--data-block-size", strconv.Itoa(tt.block), "--hash-block-size", strconv.Itoa(tt.block), "--fec-roots", strconv.Itoa(tt.roots)}
			if tt.superblock {
				p.HashOffset = TreeOffset(tt.block)
			} else {
				args = append(args, "--no-superblock")
			}
			plain := noise(tt.dataCount*tt.block, 5)
			end := newLayout(p).end + uint64(tt.rest)
			offset := uint64(0)
			if tt.sameDevice {
				end += uint64(4 * tt.block) // a gap, which is covered
				offset, fec = end, hash
				args = append(args, "--fec-offset", fmt.Sprint(offset))
			} else if err := os.WriteFile(fec, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for name, b := range map[string][]byte{data: plain, hash: noise(int(end), 6)} {
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("veritysetup", append(args, "--fec-device", fec, data, hash)...).CombinedOutput(); err != nil {
				t.Fatalf("veritysetup: %v: %s", err, out)
			}
			f, err := p.FEC(tt.roots, offset, end)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := os.ReadFile(hash)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(fec)
			if err != nil {
				t.Fatal(err)
			}
			covered := append(bytes.Clone(plain), tree[p.HashOffset:p.HashOffset+(f.Blocks-p.DataBlocks)*uint64(tt.block)]...)
			if want := encode(f, tt.block, covered); !bytes.Equal(got[offset:], want) {
				t.Errorf("veritysetup wrote %d bytes of parity, other than the %d that follow from %+v", len(got)-int(offset), len(want), f)
			}
		})
	}
}
