// SPDX-License-Identifier: Apache-2.0

//go:build vm

package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// These tests run inside the guest of rootfs/vmtest, which gives them two disks of 16 MiB.
const (
	diskA    = "/dev/vda"
	diskB    = "/dev/vdb"
	diskSize = 16 << 20
)

func openControl(t *testing.T) *devmapper.Control {
	t.Helper()
	c, err := devmapper.Open()
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

// writeDisk and readDisk go to the device itself.
func writeDisk(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
}

func readDisk(path string, at int64, n int) ([]byte, error) {
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
	_, err = f.ReadAt(b, at)
	return b, err
}

func wholeDisk(t *testing.T, path string) []byte {
	t.Helper()
	b, err := readDisk(path, 0, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func isIOError(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EILSEQ) }

func scratch(t *testing.T, c *devmapper.Control, cipher devmapper.Cipher) *Scratch {
	t.Helper()
	s, err := OpenScratch(t.Context(), c, ScratchConfig{Name: "vm-scratch", Device: diskB, Cipher: cipher})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var ciphers = map[string]devmapper.Cipher{"xts+hmac": devmapper.AESXTSHMACSHA256, "aegis128": devmapper.AEGIS128}

// TestVMScratch: scratch holds what is written to it up to its last block, and none of it shows on the disk.
func TestVMScratch(t *testing.T) {
	for name, cipher := range ciphers {
		t.Run(name, func(t *testing.T) {
			c := openControl(t)
			s := scratch(t, c, cipher)
			if s.Size < diskSize*9/10 || s.Size >= diskSize || s.Size%4096 != 0 {
				t.Errorf("size %d of %d", s.Size, diskSize)
			}
			if _, err := readDisk(s.Path, 0, 4096); !isIOError(err) {
				t.Errorf("a block that was never written: got %v", err)
			}
			if err := s.Format(t.Context(), Zeros{}); err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("plaintext "), 8192)[:64<<10]
			for _, at := range []int64{0, 1 << 20, s.Size - int64(len(want))} {
				writeDisk(t, s.Path, at, want)
				if got, err := readDisk(s.Path, at, len(want)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("reading back at %d: %v", at, err)
				}
			}
			if got, err := readDisk(s.Path, 8<<20, 4096); err != nil || len(bytes.Trim(got, "\x00")) > 0 {
				t.Errorf("a formatted block: %v", err)
			}
			if bytes.Contains(wholeDisk(t, diskB), []byte("plaintext")) {
				t.Error("plaintext on the disk")
			}
		})
	}
}

// block is what the disk holds of one block of a mapping: its ciphertext and its tag.
type block struct{ data, tag []byte }

func swap(a, b []byte) {
	c := bytes.Clone(a)
	copy(a, b)
	copy(b, c)
}

// tampering is what a host may do to two neighbouring blocks.
var tampering = map[string]func(first, second block){
	"flipped byte":                func(b, _ block) { b.data[77] ^= 1 },
	"flipped tag":                 func(b, _ block) { b.tag[0] ^= 1 },
	"block of zeros":              func(b, _ block) { clear(b.data) },
	"swapped sectors":             func(a, b block) { swap(a.data, b.data) },
	"swapped sectors and tags":    func(a, b block) { swap(a.data, b.data); swap(a.tag, b.tag) },
	"filler tag":                  func(b, _ block) { copy(b.tag, bytes.Repeat([]byte{0xf6}, len(b.tag))) },
	"filler tag, block of zeros":  func(b, _ block) { clear(b.data); copy(b.tag, bytes.Repeat([]byte{0xf6}, len(b.tag))) },
	"zero tag":                    func(b, _ block) { clear(b.tag) },
	"zero tag and block of zeros": func(b, _ block) { clear(b.data); clear(b.tag) },
}

// TestVMTampering maps a disk as scratch does, but twice with one key, since the target keeps tags in memory: what
// the host changes in between is an I/O error and never data.
func TestVMTampering(t *testing.T) {
	const at = 1 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), 3*4096/16)
	for cipherName, cipher := range ciphers {
		c := openControl(t)
		writeDisk(t, diskB, 0, make([]byte, diskSize))
		tbl := table{name: "vm-tamper", id: "0", device: diskB, cipher: cipher, key: randomKey(cipher.KeySize()), size: diskSize, sectorSize: 4096}
		s := stack{mapper: c}
		sectors, err := s.formatTags(tbl)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.open(tbl, sectors)
		if err != nil {
			t.Fatal(err)
		}
		empty := wholeDisk(t, diskB)
		writeDisk(t, d.Path, at, content)
		below, err := readDisk("/dev/mapper/vm-tamper"+tagsSuffix, at, len(content))
		if err = errors.Join(err, s.close()); err != nil {
			t.Fatal(err)
		}
		full := wholeDisk(t, diskB)
		data := bytes.Index(full, below)
		tags := firstChange(empty, full, data, data+len(below)) &^ (cipher.TagSize() - 1)
		if data < 0 || tags < 0 {
			t.Fatalf("data at %d, tags at %d", data, tags)
		}
		pick := func(disk []byte, i int) block {
			return block{disk[data+i*4096:][:4096], disk[tags+i*cipher.TagSize():][:cipher.TagSize()]}
		}
		read := func(t *testing.T, disk []byte) error {
			patch(t, full, disk)
			defer patch(t, disk, full)
			if _, err := s.open(tbl, sectors); err != nil {
				t.Fatal(err)
			}
			got, err := readDisk(d.Path, at, 4096)
			behind, err2 := readDisk(d.Path, at+2*4096, 4096)
			if err := errors.Join(err2, s.close()); err != nil || !bytes.Equal(behind, content[:4096]) {
				t.Errorf("the block behind, which nobody changed: %v", err)
			}
			if err == nil && !bytes.Equal(got, content[:4096]) {
				t.Error("another content without an error")
			}
			return err
		}
		t.Run(cipherName+"/untouched", func(t *testing.T) {
			if err := read(t, full); err != nil {
				t.Error(err)
			}
		})
		for name, tamper := range tampering {
			t.Run(cipherName+"/"+name, func(t *testing.T) {
				disk := bytes.Clone(full)
				tamper(pick(disk, 0), pick(disk, 1))
				if err := read(t, disk); !isIOError(err) {
					t.Errorf("got %v", err)
				}
			})
		}
		for bit := range 8 {
			t.Run(fmt.Sprintf("%s/superblock flag %#x", cipherName, 1<<bit), func(t *testing.T) {
				disk := bytes.Clone(full)
				disk[offFlags] ^= 1 << bit
				patch(t, full, disk)
				defer patch(t, disk, full)
				if _, err := s.open(tbl, sectors); err != nil {
					return // the kernel refuses
				}
				got, err := readDisk(d.Path, at, 4096)
				if err := s.close(); err != nil {
					t.Error(err)
				}
				if err == nil && !bytes.Equal(got, content[:4096]) || err != nil && !isIOError(err) {
					t.Errorf("another content, or %v", err)
				}
			})
		}
	}
}

func randomKey(n int) []byte {
	key := make([]byte, n)
	rand.Read(key)
	return key
}

// firstChange finds the first byte behind the superblock in which two states of a disk differ, outside of a range.
func firstChange(before, after []byte, from, to int) int {
	for i := superblockRoom; i < len(after); i++ {
		if (i < from || i >= to) && before[i] != after[i] {
			return i
		}
	}
	return -1
}

// patch writes the units in which two states of the disk differ, as the second has them, and the first unit.
func patch(t *testing.T, from, to []byte) {
	t.Helper()
	for at := 0; at < diskSize; at += writeUnit {
		if want := to[at:][:writeUnit]; at == 0 || !bytes.Equal(from[at:][:writeUnit], want) {
			writeDisk(t, diskB, int64(at), want)
		}
	}
}

// TestVMScratchFlippedByte: the same on scratch itself, whose key nobody has.
func TestVMScratchFlippedByte(t *testing.T) {
	s := scratch(t, openControl(t), devmapper.AESXTSHMACSHA256)
	const at = 1 << 20
	writeDisk(t, s.Path, at, bytes.Repeat([]byte("0123456789abcdef"), 2*4096/16))
	below, err := readDisk("/dev/mapper/vm-scratch"+tagsSuffix, at, 4096)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(wholeDisk(t, diskB), below)
	if i < 0 {
		t.Fatal("the block is not on the disk")
	}
	writeDisk(t, diskB, int64(i), []byte{below[0] ^ 1})
	if _, err := readDisk(s.Path, at, 4096); !isIOError(err) {
		t.Errorf("got %v", err)
	}
	if _, err := readDisk(s.Path, at+4096, 4096); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

// TestVMScratchFailures: what fails leaves no mapping, and somebody's volume is not overwritten.
func TestVMScratchFailures(t *testing.T) {
	c := openControl(t)
	config := ScratchConfig{Name: "vm-scratch", Device: diskB, Cipher: devmapper.AESXTSHMACSHA256}
	gone := func(t *testing.T) {
		for _, name := range []string{"vm-scratch", "vm-scratch" + tagsSuffix} {
			if _, err := c.Status(name); !errors.Is(err, unix.ENXIO) {
				t.Errorf("%s is still there: %v", name, err)
			}
		}
	}
	t.Run("name in use", func(t *testing.T) {
		other, err := c.Create(devmapper.Mapping{Name: "vm-scratch", Targets: []devmapper.Target{devmapper.Linear{LengthSectors: 8, Device: diskA}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenScratch(t.Context(), c, config); !errors.Is(err, unix.EBUSY) {
			t.Errorf("got %v", err)
		}
		if err := c.Remove(other.Name); err != nil {
			t.Error(err)
		}
		gone(t)
	})
	t.Run("device in use", func(t *testing.T) {
		s := scratch(t, c, config.Cipher)
		if _, err := OpenScratch(t.Context(), c, ScratchConfig{Name: "vm-other", Device: diskB, Cipher: config.Cipher}); !errors.Is(err, unix.EBUSY) {
			t.Errorf("got %v", err)
		}
		if _, err := readDisk(s.Path, 0, 512); !isIOError(err) {
			t.Errorf("the first mapping: %v", err)
		}
	})
	t.Run("done context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := OpenScratch(ctx, c, config); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		gone(t)
	})
	t.Run("in use while closing", func(t *testing.T) {
		s := scratch(t, c, config.Cipher)
		f, err := os.Open(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(f.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		gone(t)
	})
}

// volumes is what a guest opens, with a key that it has.
func volumes(c *devmapper.Control) Volumes { return Volumes{Mapper: c, Keys: newSecret()} }

// blank clears a disk as its owner does before making a volume.
func blank(t *testing.T, path string) {
	t.Helper()
	writeDisk(t, path, 0, make([]byte, diskSize))
}

// TestVMVolume: a volume that was created opens again with what was written to it, and reads as zeros elsewhere.
func TestVMVolume(t *testing.T) {
	for name, config := range layouts {
		for _, detached := range []bool{false, true} {
			if detached && config.Expect.Integrity != luks.IntegrityHMACSHA256 {
				continue
			}
			if detached {
				name += "/detached"
				config.Header, config.Expect.Offset = filepath.Join(t.TempDir(), "header"), 0
			}
			t.Run(name, func(t *testing.T) {
				c := openControl(t)
				blank(t, diskA)
				v := volumes(c)
				if err := v.Create(t.Context(), config, diskA, Zeros{}); err != nil {
					t.Fatal(err)
				}
				if err := v.Create(t.Context(), config, diskA, Zeros{}); !errors.Is(err, luks.ErrNotBlank) {
					t.Errorf("creating once more: %v", err)
				}
				content := bytes.Repeat([]byte("plaintext "), 410)[:4096]
				const at = 1 << 20
				var id string
				for i := range 2 {
					o, err := v.Open(t.Context(), config, diskA)
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 {
						id = o.UUID
						writeDisk(t, o.Path, at, content)
						if err := useWhileOpen(t, v, config, o); err != nil {
							t.Error(err)
						}
					}
					if got, err := readDisk(o.Path, at, 4096); err != nil || !bytes.Equal(got, content) || o.UUID != id {
						t.Errorf("opening %d: %v", i, err)
					}
					if got, err := readDisk(o.Path, o.Size-4096, 4096); err != nil || len(bytes.Trim(got, "\x00")) > 0 {
						t.Errorf("the last block: %v", err)
					}
					if err := o.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if bytes.Contains(wholeDisk(t, diskA), []byte("plaintext")) {
					t.Error("plaintext on the disk")
				}
			})
		}
	}
}

// useWhileOpen: a device that is mapped is neither opened nor created a second time, and stays as it is.
func useWhileOpen(t *testing.T, v Volumes, config VolumeConfig, o *Volume) error {
	config.Name = "vm-second"
	if _, err := v.Open(t.Context(), config, diskA); !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("opened while open: %w", err)
	}
	if err := v.Create(t.Context(), config, diskA, Zeros{}); !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("created while open: %w", err)
	}
	_, err := readDisk(o.Path, 0, 4096)
	return err
}

// TestVMVolumeRefused: another key, and headers that the host has changed, open nothing and leave nothing mapped.
func TestVMVolumeRefused(t *testing.T) {
	c := openControl(t)
	config := layouts["hmac"]
	blank(t, diskA)
	if err := volumes(c).Create(t.Context(), config, diskA, Zeros{}); err != nil {
		t.Fatal(err)
	}
	good := wholeDisk(t, diskA)
	refused := func(name string, v Volumes, want func(error) bool) {
		t.Run(name, func(t *testing.T) {
			o, err := v.Open(t.Context(), config, diskA)
			if err == nil {
				t.Fatal(errors.Join(errors.New("it opened"), o.Close()))
			}
			if !want(err) {
				t.Errorf("got %v", err)
			}
			for _, name := range []string{config.Name, config.Name + tagsSuffix} {
				if _, err := c.Status(name); !errors.Is(err, unix.ENXIO) {
					t.Errorf("%s is there: %v", name, err)
				}
			}
		})
	}
	wrong := newSecret()
	wrong.key[3] ^= 1
	refused("wrong key", Volumes{Mapper: c, Keys: wrong}, func(err error) bool { return errors.Is(err, luks.ErrWrongKey) })

	// A host knows the whole format and makes both copies and their checksums fit.
	for name, other := range map[string]luks.Layout{
		"integrity dropped": {Type: luks.TypeLUKS2, Cipher: luks.CipherAESXTS, SectorSize: 4096, Offset: volumeOffset},
		"cipher changed":    {Type: luks.TypeLUKS2, Cipher: luks.CipherAEGIS128, Integrity: luks.IntegrityAEAD, SectorSize: 4096, Offset: volumeOffset},
		"offset moved":      {Type: luks.TypeLUKS2, Cipher: luks.CipherAESXTS, Integrity: luks.IntegrityHMACSHA256, SectorSize: 4096, Offset: 2 * volumeOffset},
	} {
		blank(t, diskA)
		disk, err := os.OpenFile(diskA, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		made, err := luks.Create(disk, other, newSecret().key, newKeyCost)
		if err = errors.Join(err, disk.Close()); err != nil {
			t.Fatal(err)
		}
		made.Close()
		refused(name, volumes(c), func(err error) bool {
			m, ok := errors.AsType[*luks.Mismatch](err)
			return ok && m.Found != m.Wanted
		})
	}
	flipped := bytes.Clone(good)
	flipped[volumeOffset+offFlags] |= 2 // recalculating
	writeDisk(t, diskA, 0, flipped)
	refused("superblock flag flipped", volumes(c), func(err error) bool { return strings.Contains(err.Error(), "flags 0xa") })
	blank(t, diskA)
	refused("blank disk", volumes(c), func(err error) bool { return strings.Contains(err.Error(), "no LUKS signature") })
	if len(bytes.Trim(wholeDisk(t, diskA), "\x00")) > 0 {
		t.Error("opening a blank disk wrote to it")
	}
}
