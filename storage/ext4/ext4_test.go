// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// memory is a device that remembers which blocks were written and how.
type memory struct {
	blocks map[int64][]byte
	calls  int
	fail   int // the call that fails, counted from 1
}

var errDevice = errors.New("device gone")

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if m.calls++; m.calls == m.fail {
		return 0, errDevice
	}
	if len(b)%blockSize != 0 || at%blockSize != 0 || len(b) == 0 || len(b) > chunk {
		return 0, errors.New("write is not of whole blocks")
	}
	if m.blocks == nil {
		m.blocks = map[int64][]byte{}
	}
	for i := 0; i < len(b); i += blockSize {
		m.blocks[(at+int64(i))/blockSize] = bytes.Clone(b[i:][:blockSize])
	}
	return len(b), nil
}

func options(t *testing.T, text string) Options {
	t.Helper()
	o, err := ParseOptions(text)
	if err != nil {
		t.Fatal(err)
	}
	o.UUID, o.Label, o.Now = [16]byte{0xca, 0x5e, 15: 1}, "label", time.Unix(1700000000, 5)
	return o
}

const scratchOptions = "-O ^has_journal -m 0 -i 163840 -I 128"

// The fields of the superblock that scratch disks get, by their offsets in the kernel's super.rst.
func TestSuperblockFields(t *testing.T) {
	m := &memory{}
	o := options(t, scratchOptions)
	o.ReservedPercent = 3
	if _, err := Format(m, 10<<30, o); err != nil {
		t.Fatal(err)
	}
	for _, group := range []uint64{0, 1, 3, 5, 7, 9, 25, 27, 49} {
		sb := m.blocks[int64(group*32768)]
		if group == 0 {
			sb = sb[1024:]
		}
		for _, f := range []struct {
			name     string
			at, size int
			want     string // hexadecimal, as it lies there
		}{
			{"inodes", 0x00, 4, "00040100"}, // 80 groups of 832
			{"blocks", 0x04, 4, "00002800"},
			{"reserved", 0x08, 4, "33330100"},
			{"free inodes", 0x10, 4, "f5030100"},
			{"log block size", 0x18, 4, "02000000"},
			{"blocks per group", 0x20, 4, "00800000"},
			{"inodes per group", 0x28, 4, "40030000"},
			{"write time", 0x30, 4, "00f15365"},
			{"mount counts", 0x34, 4, "0000ffff"},
			{"magic", 0x38, 2, "53ef"},
			{"errors", 0x3c, 2, "0200"},
			{"revision", 0x4c, 4, "01000000"},
			{"first inode", 0x54, 4, "0b000000"},
			{"inode size", 0x58, 2, "8000"},
			{"compat", 0x5c, 4, "28000000"},
			{"incompat", 0x60, 4, "c2020000"},
			{"read-only compat", 0x64, 4, "6b040000"},
			{"UUID", 0x68, 16, "ca5e0000000000000000000000000001"},
			{"label", 0x78, 16, "6c6162656c0000000000000000000000"},
			{"reserved descriptors", 0xce, 2, "0000"},
			{"journal", 0xe0, 4, "00000000"},
			{"hash version", 0xfc, 1, "01"},
			{"descriptor size", 0xfe, 2, "4000"},
			{"flags", 0x160, 4, "01000000"},
			{"log groups per flex", 0x174, 1, "04"},
			{"checksum type", 0x175, 1, "01"},
		} {
			if got := hex.EncodeToString(sb[f.at:][:f.size]); got != f.want {
				t.Errorf("group %d: %s is %s, want %s", group, f.name, got, f.want)
			}
		}
		if number := le.Uint16(sb[0x5a:]); number != uint16(group) {
			t.Errorf("superblock of group %d says %d", group, number)
		}
		if clean := sb[0x3a] == 1; clean != (group == 0) {
			t.Errorf("superblock of group %d clean: %v", group, clean)
		}
	}
}

// The bytes of one small file system of each kind: a change must be meant.
func TestSameBytesAlways(t *testing.T) {
	for _, tt := range []struct {
		options string
		want    string
	}{
		{"", "05f97828ceded8f793e46a12e4f8c05b4b6cf41accced9f17ba35f98822d596d"},
		{scratchOptions, "4cbbc5cada12f597479fc08219a32df6b6d352d294f44f991f0d0c62d2f0e3b0"},
	} {
		var sums []string
		for range 2 {
			m := &memory{}
			if _, err := Format(m, 200<<20, options(t, tt.options)); err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			for block := range int64(200 << 8) {
				if b := m.blocks[block]; b != nil {
					h.Write(binary.BigEndian.AppendUint64(nil, uint64(block)))
					h.Write(b)
				}
			}
			sums = append(sums, hex.EncodeToString(h.Sum(nil)))
		}
		if sums[0] != sums[1] || sums[0] != tt.want {
			t.Errorf("%q: SHA-256 %v, want %s", tt.options, sums, tt.want)
		}
	}
}

// reader walks a file system by its own fields alone, as the kernel does, and wants every block that they name.
type reader struct {
	t *testing.T
	m *memory
}

func (r reader) block(what string, n uint64) []byte {
	b := r.m.blocks[int64(n)]
	if b == nil {
		r.t.Fatalf("block %d of %s was not written", n, what)
	}
	return b
}

var le = binary.LittleEndian

// inode returns the table's entry of a file in the first group.
func (r reader) inode(sb, descriptors []byte, number uint64) []byte {
	size := uint64(le.Uint16(sb[0x58:]))
	at := (number - 1) * size
	return r.block("inode table", uint64(le.Uint32(descriptors[8:]))+at/blockSize)[at%blockSize:][:size]
}

// zero wants a block of zeros.
func (r reader) zero(what string, n uint64) {
	if !bytes.Equal(r.block(what, n), make([]byte, blockSize)) {
		r.t.Fatalf("block %d of %s is not zero", n, what)
	}
}

// walk reads all metadata and returns how many blocks that are.
func (r reader) walk(journal bool) (seen uint64) {
	sb := r.block("superblock", 0)[1024:]
	groups := (uint64(le.Uint32(sb[4:])) + 32767) / 32768
	tableBlocks := uint64(le.Uint32(sb[0x28:])) * uint64(le.Uint16(sb[0x58:])) / blockSize
	descBlocks := (groups*64 + 4095) / 4096
	var table []byte
	for i := range descBlocks {
		table = append(table, r.block("descriptors", 1+i)...)
	}
	seen = 1 + descBlocks
	for group := range groups {
		d := table[group*64:][:64]
		r.block("block bitmap", uint64(le.Uint32(d[0:])))
		r.block("inode bitmap", uint64(le.Uint32(d[4:])))
		first := uint64(le.Uint32(d[8:]))
		r.block("inode table", first)
		for i := uint64(1); i < tableBlocks; i++ {
			r.zero("inode table", first+i)
		}
		seen += 2 + tableBlocks
		if hasBackup(group) && group > 0 {
			for i := range descBlocks {
				if !bytes.Equal(r.block("backup", group*32768+1+i), table[i*blockSize:][:blockSize]) {
					r.t.Fatalf("descriptors of group %d differ", group)
				}
			}
			seen += 1 + descBlocks
		}
	}
	files := []uint64{2, 11}
	if journal {
		files = append(files, 8)
	}
	for _, number := range files {
		extent := r.inode(sb, table, number)[0x28+12:]
		start, count := uint64(le.Uint32(extent[8:])), uint64(le.Uint16(extent[4:]))
		r.block("file", start)
		for i := uint64(1); i < count; i++ {
			if r.block("file", start+i); number == 8 {
				r.zero("journal", start+i)
			}
		}
		seen += count
	}
	return seen
}

func TestEveryBlockThatMayBeReadIsWritten(t *testing.T) {
	for _, size := range []int64{16 << 20, 127 << 20, 128 << 20, 129 << 20, 140 << 20, 1 << 30, 5<<30 + 512, 20 << 30} {
		for _, text := range []string{scratchOptions, "-i 65536", "-I 128"} {
			m := &memory{}
			layout, err := Format(m, size, options(t, text))
			if err != nil {
				t.Fatal(err)
			}
			seen := reader{t, m}.walk(layout.JournalBlocks > 0)
			var written int64
			for i, w := range layout.Ranges {
				written += w.Length
				if i > 0 && w.Offset <= layout.Ranges[i-1].Offset+layout.Ranges[i-1].Length {
					t.Errorf("range %d does not follow the one before it with a gap", i)
				}
				for at := w.Offset; at < w.Offset+w.Length; at += blockSize {
					if m.blocks[at/blockSize] == nil {
						t.Fatalf("layout names byte %d, which was not written", at)
					}
				}
			}
			if n := uint64(len(m.blocks)); n != seen || int64(n)*blockSize != written || n+layout.FreeBlocks != layout.Blocks {
				t.Errorf("%d %q: wrote %d blocks, the file system names %d, the ranges %d, free %d of %d",
					size, text, n, seen, written/blockSize, layout.FreeBlocks, layout.Blocks)
			}
		}
	}
}

// A scratch disk of 10 GiB takes few and large writes.
func TestWritesOfScratch(t *testing.T) {
	m := &memory{}
	layout, err := Format(m, 10<<30, options(t, scratchOptions))
	if err != nil {
		t.Fatal(err)
	}
	if m.calls > 24 || len(m.blocks) > 2400 || len(layout.Ranges) != 13 {
		t.Errorf("%d writes of %d blocks in %d ranges, want at most 24 of 2400 in 13", m.calls, len(m.blocks), len(layout.Ranges))
	}
}

// Whichever write fails, no superblock is there to be mounted.
func TestFormatCutOff(t *testing.T) {
	for fail := 1; ; fail++ {
		m := &memory{fail: fail}
		_, err := Format(m, 600<<20, options(t, ""))
		if err == nil {
			if fail < 10 {
				t.Fatalf("only %d writes", fail)
			}
			return
		}
		if !errors.Is(err, errDevice) {
			t.Fatal(err)
		}
		if b := m.blocks[0]; fail > 1 && !bytes.Equal(b, make([]byte, blockSize)) {
			t.Fatalf("write %d failed, but block 0 is not empty", fail)
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int64
		edit func(*Options)
		want string
	}{
		{"too small", MinSize - 1, func(*Options) {}, "size 16777215"},
		{"too large", MaxSize + 1, func(*Options) {}, "size 17592186044417"},
		{"negative", -1, func(*Options) {}, "size -1"},
		{"no UUID", MinSize, func(o *Options) { o.UUID = [16]byte{} }, "UUID is missing"},
		{"no time", MinSize, func(o *Options) { o.Now = time.Time{} }, "is missing or before 1970"},
		{"2038", MinSize, func(o *Options) { o.Now, o.InodeSize = time.Unix(1<<31, 0), 128 }, "more than inodes of 128"},
		{"far future", MinSize, func(o *Options) { o.Now = time.Unix(1<<34, 0) }, "more than inodes of 256"},
		{"reserved", MinSize, func(o *Options) { o.ReservedPercent = 51 }, "51 percent"},
		{"bytes per inode missing", MinSize, func(o *Options) { o.BytesPerInode = 0 }, "0 bytes per inode"},
		{"too many inodes", MaxSize, func(o *Options) { o.BytesPerInode = 4096 }, "make 4294967296 inodes"},
		{"inode size", MinSize, func(o *Options) { o.InodeSize = 512 }, "inode size 512"},
		{"mode missing", MinSize, func(o *Options) { o.RootMode = 0 }, "mode 0"},
		{"mode is a type", MinSize, func(o *Options) { o.RootMode = 0o40755 }, "mode 040755"},
		{"long label", MinSize, func(o *Options) { o.Label = strings.Repeat("x", 17) }, "at most 16 bytes"},
		{"label with a control character", MinSize, func(o *Options) { o.Label = "a\nb" }, "unprintable"},
		{"label not UTF-8", MinSize, func(o *Options) { o.Label = "\xff" }, "UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, "")
			tt.edit(&o)
			m := &memory{}
			if _, err := Format(m, tt.size, o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if m.calls > 0 {
				t.Error("something was written")
			}
		})
	}
}

func TestBackupGroups(t *testing.T) {
	var got []uint64
	for group := range uint64(700) {
		if hasBackup(group) {
			got = append(got, group)
		}
	}
	if want := []uint64{0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625}; !slices.Equal(got, want) {
		t.Errorf("backups in %v, want %v", got, want)
	}
}
