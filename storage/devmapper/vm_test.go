// SPDX-License-Identifier: Apache-2.0

//go:build vm

package devmapper

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests run inside the guest of rootfs/vmtest, which gives them two disks of 16 MiB.
const (
	diskA       = "/dev/vda"
	diskB       = "/dev/vdb"
	diskSectors = 16 << 20 / SectorSize
)

func openControl(t *testing.T) *Control {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// create makes a mapping that is gone after the test.
func create(t *testing.T, c *Control, m Mapping) Device {
	t.Helper()
	d, err := c.Create(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(m.Name); err != nil && !errors.Is(err, unix.ENXIO) {
			t.Error(err)
		}
		if _, err := os.Stat(d.Path); err == nil {
			t.Errorf("%s is still there", d.Path)
		}
	})
	return d
}

func randomKey(t *testing.T, n int) []byte {
	t.Helper()
	key := make([]byte, n)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clear(key) })
	return key
}

// writeAt and readAt go around the page cache of the block device.
func writeAt(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, off)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
}

func readAt(path string, off int64, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Drop what the page cache holds, so that the target is asked.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKFLSBUF, 0); errno != 0 {
		return nil, errno
	}
	b := make([]byte, n)
	_, err = f.ReadAt(b, off)
	return b, err
}

func zero(t *testing.T, path string, n int) {
	t.Helper()
	writeAt(t, path, 0, make([]byte, n))
}

func plaintext(n int) []byte { return bytes.Repeat([]byte("plaintext "), n/10+1)[:n] }

func TestVMVersions(t *testing.T) {
	versions, err := openControl(t).Versions()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"crypt", "integrity", "verity", "linear"} {
		if !slices.ContainsFunc(versions, func(v TargetVersion) bool { return v.Kind == kind }) {
			t.Errorf("the kernel has no target %s: %v", kind, versions)
		}
	}
}

// TestVMCrypt: what is written through the mapping reads back, and lies on the disk as something else.
func TestVMCrypt(t *testing.T) {
	for _, sectorSize := range []int{512, 4096} {
		t.Run(strconv.Itoa(sectorSize), func(t *testing.T) {
			c := openControl(t)
			zero(t, diskA, 1<<20)
			m := Mapping{Name: "vm-crypt", UUID: "CASEMATE-VM-1", Targets: []Target{Crypt{
				LengthSectors: diskSectors - 64, Cipher: AESXTS, Key: randomKey(t, 64), Device: diskA, OffsetSectors: 64,
				SectorSize: sectorSize, NoWorkqueues: true,
			}}}
			d := create(t, c, m)
			want := plaintext(1 << 16)
			writeAt(t, d.Path, 0, want)
			if got, err := readAt(d.Path, 0, len(want)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("reading back: %v", err)
			}
			raw, err := readAt(diskA, 0, 64*SectorSize+len(want))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, []byte("plaintext")) || bytes.Equal(raw[64*SectorSize:][:16], make([]byte, 16)) {
				t.Error("the backing disk holds no ciphertext")
			}
			if len(bytes.Trim(raw[:64*SectorSize], "\x00")) > 0 {
				t.Error("the mapping wrote before its offset")
			}
			status, err := c.Status("vm-crypt")
			if err != nil || len(status) != 1 || status[0].Kind != "crypt" || status[0].LengthSectors != diskSectors-64 {
				t.Errorf("status %+v, %v", status, err)
			}
			if _, err := c.Create(m); !errors.Is(err, unix.EBUSY) {
				t.Errorf("a second mapping of the same name: %v", err)
			}
		})
	}
}

func TestVMWrongKeyReadsNoise(t *testing.T) {
	c := openControl(t)
	m := Mapping{Name: "vm-crypt", Targets: []Target{Crypt{LengthSectors: 2048, Cipher: AESXTS, Key: randomKey(t, 64), Device: diskA, SectorSize: 512}}}
	d := create(t, c, m)
	writeAt(t, d.Path, 0, plaintext(4096))
	if err := c.Remove(m.Name); err != nil {
		t.Fatal(err)
	}
	m.Targets = []Target{Crypt{LengthSectors: 2048, Cipher: AESXTS, Key: randomKey(t, 64), Device: diskA, SectorSize: 512}}
	d = create(t, c, m)
	if got, err := readAt(d.Path, 0, 4096); err != nil || bytes.Contains(got, []byte("plaintext")) {
		t.Errorf("another key reads the data: %v", err)
	}
}

func TestVMReadOnly(t *testing.T) {
	c := openControl(t)
	d := create(t, c, Mapping{Name: "vm-ro", ReadOnly: true, Targets: []Target{Linear{LengthSectors: 8, Device: diskA, OffsetSectors: 8}}})
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.Write(make([]byte, 512))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		t.Error("a read-only mapping took a write")
	}
}

func TestVMRemoveBusy(t *testing.T) {
	c := openControl(t)
	d := create(t, c, Mapping{Name: "vm-busy", Targets: []Target{Linear{LengthSectors: 8, Device: diskA}}})
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(d.Name); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removing an open mapping: %v", err)
	}
	if _, err := os.Stat(d.Path); err != nil {
		t.Errorf("the node went although the mapping stayed: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestVMBadTableLeavesNothing(t *testing.T) {
	c := openControl(t)
	_, err := c.Create(Mapping{Name: "vm-bad", Targets: []Target{Linear{LengthSectors: 8, Device: "/dev/no-such-disk"}}})
	if err == nil || !strings.Contains(err.Error(), "loading the table") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status("vm-bad"); !errors.Is(err, unix.ENXIO) {
		t.Errorf("the device is still there: %v", err)
	}
}

// integrity formats a disk and returns its usable sectors, which the target reports.
func integrity(t *testing.T, c *Control, table Integrity) uint64 {
	t.Helper()
	zero(t, table.Device, 1<<20)
	table.LengthSectors = 8
	d := create(t, c, Mapping{Name: "vm-format", Targets: []Target{table}})
	status, err := c.Status("vm-format")
	if err != nil || len(status) != 1 {
		t.Fatalf("status %v, %v", status, err)
	}
	if err := c.Remove(d.Name); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(status[0].Info)
	if len(words) < 2 {
		t.Fatalf("status %q", status[0].Info)
	}
	sectors, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil || sectors == 0 || sectors >= diskSectors {
		t.Fatalf("status %q: %v", status[0].Info, err)
	}
	return sectors
}

// flip changes one byte of a disk wherever pattern stands, and says how often that was.
func flip(t *testing.T, path string, pattern []byte) (n int) {
	t.Helper()
	raw, err := readAt(path, 0, diskSectors*SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; ; {
		i := bytes.Index(raw[off:], pattern)
		if i < 0 {
			return n
		}
		writeAt(t, path, int64(off+i), []byte{pattern[0] ^ 1})
		off += i + len(pattern)
		n++
	}
}

// TestVMIntegrity: with a key, the target itself notices a changed block.
func TestVMIntegrity(t *testing.T) {
	c := openControl(t)
	table := Integrity{Device: diskB, BlockSize: 4096, Key: randomKey(t, 32)}
	table.LengthSectors = integrity(t, c, table)
	d := create(t, c, Mapping{Name: "vm-integrity", Targets: []Target{table}})
	want := bytes.Repeat([]byte("a block under a MAC "), 4096)[:8*4096]
	writeAt(t, d.Path, 0, want)
	if got, err := readAt(d.Path, 0, len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("reading back: %v", err)
	}
	if flip(t, diskB, want[:4096]) == 0 {
		t.Fatal("the test did not find its data on the disk")
	}
	if _, err := readAt(d.Path, 0, 4096); !errors.Is(err, unix.EILSEQ) && !errors.Is(err, unix.EIO) {
		t.Errorf("reading a changed block: %v", err)
	}
}

// TestVMAuthenticatedCrypt stacks the authenticating cipher on an integrity device without a key.
func TestVMAuthenticatedCrypt(t *testing.T) {
	c := openControl(t)
	lower := Integrity{Device: diskB, BlockSize: 4096, TagSize: 32}
	lower.LengthSectors = integrity(t, c, lower)
	tags := create(t, c, Mapping{Name: "vm-tags", Targets: []Target{lower}})
	upper := Crypt{LengthSectors: lower.LengthSectors, Cipher: AESXTSHMACSHA256, Key: randomKey(t, 96), Device: tags.Path, SectorSize: 4096}
	d := create(t, c, Mapping{Name: "vm-aead", Targets: []Target{upper}})
	want := plaintext(64 << 10)
	writeAt(t, d.Path, 1<<20, want)
	if got, err := readAt(d.Path, 1<<20, len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("reading back: %v", err)
	}
	cipher, err := readAt(tags.Path, 1<<20, 4096)
	if err != nil || bytes.Contains(cipher, []byte("plaintext")) {
		t.Errorf("the device below holds no ciphertext: %v", err)
	}
	if flip(t, diskB, cipher) != 1 {
		t.Fatal("the test did not find its data on the disk")
	}
	if _, err := readAt(d.Path, 1<<20, 4096); !errors.Is(err, unix.EILSEQ) && !errors.Is(err, unix.EIO) {
		t.Errorf("reading a changed block: %v", err)
	}
	// Its neighbour was not touched; a block that was never written has no valid tag.
	if _, err := readAt(d.Path, 1<<20+4096, 4096); err != nil {
		t.Errorf("reading the next block: %v", err)
	}
	if _, err := readAt(d.Path, 4<<20, 4096); !errors.Is(err, unix.EILSEQ) && !errors.Is(err, unix.EIO) {
		t.Errorf("reading a block with a filler tag: %v", err)
	}
}

// TestVMVerity builds a tree of one hash block by hand.
func TestVMVerity(t *testing.T) {
	const blockSize, blocks = 4096, 16
	salt := []byte("salt of the test")
	data := make([]byte, blockSize*blocks)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	hash := func(b []byte) []byte {
		h := sha256.New()
		h.Write(salt)
		h.Write(b)
		return h.Sum(nil)
	}
	tree := make([]byte, 0, blockSize)
	for i := range blocks {
		tree = append(tree, hash(data[i*blockSize:][:blockSize])...)
	}
	tree = tree[:blockSize]
	writeAt(t, diskA, 0, data)
	writeAt(t, diskB, blockSize, tree)
	c := openControl(t)
	table := Verity{HashType: 1, DataDevice: diskA, HashDevice: diskB, DataBlockSize: blockSize, HashBlockSize: blockSize,
		DataBlocks: blocks, HashStartBlock: 1, Algorithm: "sha256", RootHash: hash(tree), Salt: salt}
	d := create(t, c, Mapping{Name: "vm-verity", ReadOnly: true, Targets: []Target{table}})
	if got, err := readAt(d.Path, 0, len(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("reading back: %v", err)
	}
	writeAt(t, diskA, 5*blockSize+7, []byte{data[5*blockSize+7] ^ 1})
	for i := range int64(blocks) {
		_, err := readAt(d.Path, i*blockSize, blockSize)
		if (i == 5) != (err != nil) || err != nil && errors.Is(err, io.EOF) {
			t.Errorf("block %d with block 5 changed: %v", i, err)
		}
	}
	table.RootHash = make([]byte, 32)
	bad := create(t, c, Mapping{Name: "vm-verity-2", ReadOnly: true, Targets: []Target{table}})
	if _, err := readAt(bad.Path, 0, blockSize); err == nil {
		t.Error("another root hash was accepted")
	}
}
