// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory is an image in memory. What nobody wrote is zeros.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if end := at + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[at:], p), nil
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	n := copy(p, m.b[min(at, int64(len(m.b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) Truncate(size int64) error {
	m.b = append(m.b[:min(int64(len(m.b)), size)], make([]byte, max(0, size-int64(len(m.b))))...)
	return nil
}

func regular(size, data int64) *Inode {
	return &Inode{Mode: unix.S_IFREG | 0o644, Links: 1, Size: size, Data: data}
}

func dir(entries ...Entry) *Inode {
	return &Inode{Mode: unix.S_IFDIR | 0o755, Extra: &Extra{Entries: entries}}
}

func write(t *testing.T, end int64, root *Inode) *memory {
	t.Helper()
	m := &memory{make([]byte, end)}
	if err := Write(m, end, root, [16]byte{0xaa, 15: 0xbb}); err != nil {
		t.Fatal(err)
	}
	if len(m.b)%4096 != 0 {
		t.Errorf("the image has %d bytes, want whole pages", len(m.b))
	}
	return m
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	want = strings.Join(strings.Fields(want), "")
	if hex.EncodeToString(got) != want {
		t.Errorf("%s\n got %x\nwant %s", what, got, want)
	}
}

// TestSuperblock pins the bytes of struct erofs_super_block.
func TestSuperblock(t *testing.T) {
	m := write(t, HeadBytes+1024, dir(Entry{"f", regular(600, HeadBytes)}))
	wantHex(t, "superblock", m.b[1024:1024+128], `
		e2e1f5e0 00000000 02000000 09 00 0200
		0200000000000000 0000000000000000 00000000 18000000
		10000000 00000000
		aa0000000000000000000000000000bb 00000000000000000000000000000000
		00000000 0000 0000 0000 00 00 00000000 0000000000000000
		00 0000000000000000000000000000000000000000000000`)
	for i, b := range m.b[:1024] {
		if b != 0 {
			t.Fatalf("byte %d before the superblock is %#x", i, b)
		}
	}
}

// TestInodes pins the bytes of an inline directory, of files of each kind and of attributes. The metadata begin at
// 8192, inodes at slot 2.
func TestInodes(t *testing.T) {
	file := regular(600, HeadBytes+512)
	file.Links = 2
	file.UID, file.GID, file.Sec, file.Nsec = 0x01020304, 0x05060708, -1, 999
	file.Extra = &Extra{Xattrs: []Xattr{{6, "capability", []byte("cap")}}}
	link := &Inode{Mode: unix.S_IFLNK | 0o777, Links: 1, Extra: &Extra{Target: "there"}}
	device := &Inode{Mode: unix.S_IFBLK | 0o660, Links: 1, Dev: unix.Mkdev(0x123, 0x45678)}
	m := write(t, HeadBytes+2048, dir(Entry{"l", link}, Entry{"f", file}, Entry{"d", device}, Entry{"!", file}))
	meta := m.b[8192:]
	wantHex(t, "root", meta[64:64+64], `
		0500 0000 ed41 0000 4f00000000000000 00000000 01000000
		00000000 00000000 0000000000000000 00000000 02000000 00000000000000000000000000000000`)
	wantHex(t, "root's entries", meta[128:128+80], `
		0800000000000000 4800 01 00 0200000000000000 4900 02 00 0200000000000000 4a00 02 00
		0c00000000000000 4c00 04 00 0800000000000000 4d00 01 00 1000000000000000 4e00 07 00
		21 2e 2e2e 64 66 6c 00`)
	wantHex(t, "file", meta[256:256+64+12+20], `
		0100 0600 a481 0000 5802000000000000 09000000 02000000
		04030201 08070605 ffffffffffffffff e7030000 02000000 00000000000000000000000000000000
		00000000 00 00000000000000
		0a 06 0300 6361706162696c697479 636170 000000`)
	wantHex(t, "device", meta[384:384+32], `
		0100 0000 b061 0000 0000000000000000 78236145 03000000 00000000 00000000`)
	// At 448 its target would cross a block.
	wantHex(t, "link", meta[512:512+70], `
		0500 0000 ffa1 0000 0500000000000000 00000000 04000000
		00000000 00000000 0000000000000000 00000000 01000000 00000000000000000000000000000000
		7468657265 00`)
}

// TestLargeDirectory: entries come in order over the blocks, none crosses one, and only the last block is cut.
func TestLargeDirectory(t *testing.T) {
	for _, count := range []int{5, 40, 700} {
		root := dir()
		for i := range count {
			root.Extra.Entries = append(root.Extra.Entries, Entry{fmt.Sprintf("%x-%s", i*7919%count, strings.Repeat("n", i%230)), regular(0, 0)})
		}
		m := write(t, HeadBytes, root)
		length := int(binary.LittleEndian.Uint64(m.b[superMeta(m)+64+8:]))
		begin := int(binary.LittleEndian.Uint32(m.b[superMeta(m)+64+16:])) * BlockBytes
		if m.b[superMeta(m)+64] == 1|layoutInline<<1 {
			begin = superMeta(m) + 128
		}
		names := readDir(t, m.b[begin:begin+length])
		if len(names) != count+2 {
			t.Errorf("%d entries: read %d", count, len(names))
		}
		for i := 1; i < len(names); i++ {
			if names[i-1] >= names[i] {
				t.Errorf("%q stands before %q", names[i-1], names[i])
			}
		}
	}
}

func superMeta(m *memory) int {
	return int(binary.LittleEndian.Uint32(m.b[1024+40:])) * BlockBytes
}

// readDir reads a directory's content as the format describes it.
func readDir(t *testing.T, b []byte) (names []string) {
	t.Helper()
	for len(b) > 0 {
		block := b[:min(BlockBytes, len(b))]
		b = b[len(block):]
		first := int(binary.LittleEndian.Uint16(block[8:]))
		for i := 0; i < first; i += entryBytes {
			at, end := int(binary.LittleEndian.Uint16(block[i+8:])), len(block)
			if i+entryBytes < first {
				end = int(binary.LittleEndian.Uint16(block[i+entryBytes+8:]))
			}
			names = append(names, string(bytes.TrimRight(block[at:end], "\x00")))
		}
	}
	return names
}

// TestSparse reads files with holes back through their chunk maps.
func TestSparse(t *testing.T) {
	tests := []struct {
		name     string
		size     int64
		segments []Segment
		chunks   int64
	}{
		{"only a hole", 1 << 40, nil, 1},
		{"one byte", 1, []Segment{{0, 1}}, 1},
		{"one byte at the end", 10000, []Segment{{9999, 1}}, 3},
		{"over chunks", 20000, []Segment{{4000, 9000}, {13001, 2}, {19999, 1}}, 5},
		{"two in a chunk, one over its end", 8192, []Segment{{1, 1}, {100, 100}, {4090, 10}}, 2},
		{"ends with a chunk", 8192, []Segment{{0, 4096}, {4096, 4096}}, 2},
		{"a few bytes of a terabyte", 1 << 40, []Segment{{0, 1}, {1 << 39, 1}}, 4096},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stored := []byte{}
			for _, s := range tt.segments {
				stored = append(stored, bytes.Repeat([]byte{byte(len(stored)%251 + 1)}, int(s.Length))...)
			}
			f := regular(tt.size, 0)
			f.Extra = &Extra{Sparse: &Sparse{Segments: tt.segments, Data: HeadBytes}}
			end := ceil(HeadBytes+int64(len(stored)), BlockBytes)
			m := &memory{make([]byte, end)}
			copy(m.b[HeadBytes:], stored)
			if tt.size > 1<<30 && len(tt.segments) > 0 {
				f.Extra.Sparse.plan(tt.size, 0) // an image of this size is for a file with holes of its own
			} else if err := Write(m, end, dir(Entry{"f", f}), [16]byte{}); err != nil {
				t.Fatal(err)
			}
			s := f.Extra.Sparse
			if s.chunks != tt.chunks {
				t.Errorf("got %d chunks of %d bytes, want %d", s.chunks, 1<<s.bits, tt.chunks)
			}
			if tt.size > 1<<30 {
				return
			}
			got := make([]byte, 0, tt.size)
			for m2 := s.appendMap(nil); len(m2) > 0; m2 = m2[4:] {
				n := min(1<<s.bits, tt.size-int64(len(got)))
				if at := int64(binary.LittleEndian.Uint32(m2)); at == 1<<32-1 {
					got = append(got, make([]byte, n)...)
				} else {
					got = append(got, m.b[at*BlockBytes:][:n]...)
				}
			}
			want := make([]byte, tt.size)
			for _, s := range tt.segments {
				stored = stored[copy(want[s.Offset:s.Offset+s.Length], stored):]
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the file reads otherwise than it was")
			}
		})
	}
}

// TestTooLarge: many small descriptions of large files do not make a large image, and what has no block number is
// refused before anything is written.
func TestTooLarge(t *testing.T) {
	var entries []Entry
	for i := range 5000 {
		f := regular(256<<30, 0)
		f.Extra = &Extra{Sparse: &Sparse{}}
		entries = append(entries, Entry{fmt.Sprint(i), f})
	}
	if m := write(t, HeadBytes, dir(entries...)); len(m.b) > 1<<20 {
		t.Errorf("5000 holes take %d bytes", len(m.b))
	}
	m := &memory{make([]byte, HeadBytes)}
	if err := Write(m, maxImage-4096, dir(), [16]byte{}); !errors.Is(err, ErrTooLarge) || len(m.b) != HeadBytes {
		t.Errorf("got error %v and %d bytes, want %v", err, len(m.b), ErrTooLarge)
	}
}

func TestNamespace(t *testing.T) {
	for name, want := range map[string]struct {
		space byte
		rest  string
	}{
		"user.a": {1, "a"}, "trusted.overlay.opaque": {4, "overlay.opaque"}, "security.capability": {6, "capability"},
		"system.posix_acl_access": {2, ""}, "system.posix_acl_default": {3, ""}, "user.": {1, ""},
		"system.nfs4_acl": {}, "com.apple.x": {}, "": {}, "userx": {},
	} {
		space, rest, ok := Namespace(name)
		if space != want.space || rest != want.rest || ok != (want.space != 0) {
			t.Errorf("%q: got %d %q %t, want %d %q", name, space, rest, ok, want.space, want.rest)
		}
	}
}

func TestKernelDev(t *testing.T) {
	for want, dev := range map[uint32]uint64{0: 0, 0x103: unix.Mkdev(1, 3), 0x45612378: unix.Mkdev(0x123, 0x45678)} {
		if got := kernelDev(dev); got != want {
			t.Errorf("got %#x, want %#x", got, want)
		}
	}
}
