// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// secret is a KeySource that keeps what it handed out.
type secret struct {
	key   []byte
	err   error
	given [][]byte
}

func (s *secret) Key(_ context.Context, uri string) ([]byte, error) {
	if uri != "kbs:///a/b/c" {
		return nil, errors.New("another URI: " + uri)
	}
	key := bytes.Clone(s.key)
	s.given = append(s.given, key)
	return key, s.err
}

func newSecret() *secret { return &secret{key: []byte("0123456789abcdef0123456789abcdef")} }

func (s *secret) checkCleared(t *testing.T) {
	t.Helper()
	for _, key := range s.given {
		if len(bytes.Trim(key, "\x00")) > 0 {
			t.Error("a passphrase was not cleared")
		}
	}
}

const (
	deviceSize   = 4 << 20
	volumeOffset = 1 << 20
)

func volumeConfig(cipher, integrity string) VolumeConfig {
	return VolumeConfig{Name: "vol", Key: "kbs:///a/b/c", Expect: luks.Expect{OwnHeader: true, Layout: luks.Layout{
		Type: luks.TypeLUKS2, Cipher: cipher, Integrity: integrity, SectorSize: 4096, Offset: volumeOffset,
	}}}
}

// makeVolume creates a volume on a new disk and puts a superblock where the kernel would.
func makeVolume(t *testing.T, c VolumeConfig) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	m, s := newMapper(t), newSecret()
	c, err := c.check()
	if err != nil {
		t.Fatal(err)
	}
	if err := (Volumes{Mapper: m, Keys: s}).create(t.Context(), c, "/dev/vdb", openDisk(t, path, deviceSize), Zeros{}); err != nil {
		t.Fatal(err)
	}
	m.checkClean(t)
	s.checkCleared(t)
	cipher, err := cipherOf(c.Expect.Layout)
	if err != nil {
		t.Fatal(err)
	}
	if cipher.TagSize() > 0 {
		b := superblock(table{cipher: cipher}, 2048)
		disk := openDisk(t, path, 0)
		if _, err := disk.WriteAt(b, int64(c.Expect.Offset)); err != nil {
			t.Fatal(err)
		}
		disk.Close()
	}
	return path
}

func openVolume(t *testing.T, m *mapper, s *secret, c VolumeConfig, path string) (*Volume, error) {
	t.Helper()
	c, err := c.check()
	if err != nil {
		return nil, err
	}
	o, err := (Volumes{Mapper: m, Keys: s}).open(t.Context(), c, "/dev/vdb", openDisk(t, path, 0))
	m.checkKeys(t)
	s.checkCleared(t)
	return o, err
}

var layouts = map[string]VolumeConfig{
	"plain": volumeConfig(luks.CipherAESXTS, luks.IntegrityNone),
	"hmac":  volumeConfig(luks.CipherAESXTS, luks.IntegrityHMACSHA256),
	"aegis": volumeConfig(luks.CipherAEGIS128, luks.IntegrityAEAD),
}

// TestVolumeTables: a created volume opens, again and again, with the same key and tables.
func TestVolumeTables(t *testing.T) {
	for name, c := range layouts {
		for _, detached := range []bool{false, true} {
			if detached {
				name += " detached"
				c.Header, c.Expect.Offset = filepath.Join(t.TempDir(), "header"), 0
			}
			t.Run(name, func(t *testing.T) {
				path := makeVolume(t, c)
				var first []devmapper.Target
				for range 2 {
					m := newMapper(t)
					o, err := openVolume(t, m, newSecret(), c, path)
					if err != nil {
						t.Fatal(err)
					}
					if first == nil {
						first = m.tables
					}
					checkVolumeTables(t, c, m)
					// The first table names a path of the first mapper.
					a, b := first[len(first)-1].(devmapper.Crypt), m.tables[len(first)-1].(devmapper.Crypt)
					if !bytes.Equal(a.Key, b.Key) || len(bytes.Trim(a.Key, "\x00")) == 0 {
						t.Error("another volume key")
					}
					if err := o.Close(); err != nil {
						t.Error(err)
					}
					m.checkClean(t)
				}
			})
		}
	}
}

func checkVolumeTables(t *testing.T, c VolumeConfig, m *mapper) {
	t.Helper()
	cipher, err := cipherOf(c.Expect.Layout)
	if err != nil {
		t.Fatal(err)
	}
	offset := c.Expect.Offset / 512
	crypt := devmapper.Crypt{LengthSectors: deviceSize/512 - offset, Cipher: cipher, Device: "/dev/vdb", OffsetSectors: offset, SectorSize: 4096, NoWorkqueues: true}
	var want []devmapper.Target
	if cipher.TagSize() > 0 {
		crypt.LengthSectors, crypt.Device, crypt.OffsetSectors = 2048, filepath.Join(m.dir, "vol"+tagsSuffix), 0
		want = append(want, devmapper.Integrity{LengthSectors: 2048, Device: "/dev/vdb", OffsetSectors: offset, BlockSize: 4096, TagSize: 32, Journal: true})
	}
	crypt.Key = m.tables[len(m.tables)-1].(devmapper.Crypt).Key
	if want = append(want, crypt); !reflect.DeepEqual(m.tables, want) {
		t.Errorf("got %+v\nwant %+v", m.tables, want)
	}
}

// TestOpenNeverFormats: whatever is wrong with the disk, opening it is an error, nothing is written, nothing stays
// mapped and no key in memory.
func TestOpenNeverFormats(t *testing.T) {
	hmac := layouts["hmac"]
	for _, tt := range []struct {
		name   string
		change func(c *VolumeConfig, s *secret, m *mapper)
		disk   func(f *os.File) error
		want   string
		is     error
	}{
		{name: "blank disk", disk: func(f *os.File) error { return errors.Join(f.Truncate(0), f.Truncate(deviceSize)) }, want: "no LUKS signature"},
		{name: "wrong key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.key[0] ^= 1 }, is: luks.ErrWrongKey},
		{name: "no key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.err = io.ErrUnexpectedEOF }, is: io.ErrUnexpectedEOF},
		{name: "empty key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.key = nil }, want: "0 bytes, want 1"},
		{name: "huge key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.key = make([]byte, maxKey+1) }, want: "4097 bytes"},
		{name: "integrity dropped", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.Integrity = "" }, want: "integrity in the header"},
		{name: "another cipher", change: func(c *VolumeConfig, _ *secret, _ *mapper) {
			c.Expect.Cipher, c.Expect.Integrity = luks.CipherAEGIS128, luks.IntegrityAEAD
		}, want: "cipher in the header"},
		{name: "another offset", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.Offset += 4096 }, want: "offset in the header"},
		{name: "integrity of a fixed size", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.Size = 8192 }, is: ErrDataSize},
		{name: "cipher that is not offered", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.Cipher = "cipher_null-ecb" }, want: "not offered"},
		{name: "relative header", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Header = "header" }, want: "absolute path"},
		{name: "no header file", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Header = "/no/such/header" }, is: os.ErrNotExist},
		{name: "superblock gone", disk: func(f *os.File) error { _, err := f.WriteAt(make([]byte, 8), volumeOffset); return err }, want: "magic"},
		{name: "superblock says recalculate", disk: func(f *os.File) error { _, err := f.WriteAt([]byte{10}, volumeOffset+offFlags); return err }, want: "flags 0xa"},
		{name: "disk cut behind the header", disk: func(f *os.File) error { return f.Truncate(volumeOffset) }, want: "want at least"},
		{name: "disk cut in the data", disk: func(f *os.File) error { return f.Truncate(volumeOffset + 2048*512) }, want: "2048 sectors of data in 2048"},
		{name: "tags fail", change: func(_ *VolumeConfig, _ *secret, m *mapper) { m.failAt = 1 }, is: errNoMapping},
		{name: "encryption fails", change: func(_ *VolumeConfig, _ *secret, m *mapper) { m.failAt = 2 }, is: errNoMapping},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := makeVolume(t, hmac)
			c, s, m := hmac, newSecret(), newMapper(t)
			if tt.change != nil {
				tt.change(&c, s, m)
			}
			if tt.disk != nil {
				f := openDisk(t, path, 0)
				if err := errors.Join(tt.disk(f), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = openVolume(t, m, s, c, path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %q %v", err, tt.want, tt.is)
			}
			m.checkClean(t)
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the disk was written to: %v", err)
			}
		})
	}
}

// TestCreateRefuses before anything is written, unless it says otherwise.
func TestCreateRefuses(t *testing.T) {
	set := func(at int64) func(f *os.File) error {
		return func(f *os.File) error { _, err := f.WriteAt([]byte{1}, at); return err }
	}
	for _, tt := range []struct {
		name    string
		change  func(c *VolumeConfig, s *secret, m *mapper)
		disk    func(f *os.File) error
		written bool
		want    string
		is      error
	}{
		{name: "somebody's data at the start", disk: set(0), is: luks.ErrNotBlank},
		{name: "somebody's superblock", disk: set(1080), is: luks.ErrNotBlank},
		{name: "somebody's data behind the offset", disk: set(volumeOffset + 5000), is: luks.ErrNotBlank},
		{name: "short key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.key = s.key[:31] }, want: "at least 32"},
		{name: "no key", change: func(_ *VolumeConfig, s *secret, _ *mapper) { s.err = io.ErrUnexpectedEOF }, is: io.ErrUnexpectedEOF},
		{name: "no token", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.OwnHeader = false }, want: "own token"},
		{name: "small sectors", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.SectorSize = 512 }, want: "sector size 512"},
		{name: "LUKS1", change: func(c *VolumeConfig, _ *secret, _ *mapper) { c.Expect.Type = luks.TypeLUKS1 }, want: "luks1"},
		{name: "device too small", disk: func(f *os.File) error { return f.Truncate(volumeOffset) }, want: "want at least"},
		{name: "tags fail", written: true, change: func(_ *VolumeConfig, _ *secret, m *mapper) { m.failAt = 1 }, is: errNoMapping},
		{name: "tags fail the second time", written: true, change: func(_ *VolumeConfig, _ *secret, m *mapper) { m.failAt = 2 }, is: errNoMapping},
		{name: "encryption fails", written: true, change: func(_ *VolumeConfig, _ *secret, m *mapper) { m.failAt = 3 }, is: errNoMapping},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, s, m := layouts["hmac"], newSecret(), newMapper(t)
			path := filepath.Join(t.TempDir(), "disk")
			f := openDisk(t, path, deviceSize)
			if tt.disk != nil {
				if err := tt.disk(f); err != nil {
					t.Fatal(err)
				}
			}
			if tt.change != nil {
				tt.change(&c, s, m)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if c, err = c.check(); err == nil {
				err = checkNew(c.Expect)
			}
			if err == nil {
				err = (Volumes{Mapper: m, Keys: s}).create(t.Context(), c, "/dev/vdb", f, Zeros{})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %q %v", err, tt.want, tt.is)
			}
			m.checkClean(t)
			s.checkCleared(t)
			if after, err := os.ReadFile(path); err != nil || bytes.Equal(before, after) == tt.written {
				t.Errorf("written: want %v: %v", tt.written, err)
			}
		})
	}
}

// TestCreateTwice: a volume, and what a create that failed leaves, is no blank target; neither is it opened by creating.
func TestCreateTwice(t *testing.T) {
	c := layouts["hmac"]
	path := filepath.Join(t.TempDir(), "disk")
	broken := errors.New("power is gone")
	create := func(f Formatter) error {
		m, s := newMapper(t), newSecret()
		err := (Volumes{Mapper: m, Keys: s}).create(t.Context(), c, "/dev/vdb", openDisk(t, path, deviceSize), f)
		m.checkClean(t)
		s.checkCleared(t)
		return err
	}
	if err := create(formatter(func(io.WriterAt, int64) error { return broken })); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if err := create(Zeros{}); !errors.Is(err, luks.ErrNotBlank) {
		t.Errorf("got %v", err)
	}
}

func TestCloseNamed(t *testing.T) {
	for _, name := range []string{"plain", "hmac"} {
		m := newMapper(t)
		if _, err := openVolume(t, m, newSecret(), layouts[name], makeVolume(t, layouts[name])); err != nil {
			t.Fatal(err)
		}
		if err := CloseNamed(m, "other"); !errors.Is(err, unix.ENXIO) {
			t.Errorf("a name that is not mapped: %v", err)
		}
		if err := CloseNamed(m, "vol"); err != nil {
			t.Error(err)
		}
		m.checkClean(t)
	}
	m := newMapper(t)
	m.live = []string{"vol" + tagsSuffix} // the mapping above went, and then the call failed
	if err := CloseNamed(m, "vol"); err != nil {
		t.Error(err)
	}
	m.checkClean(t)
	m.live, m.kind = []string{"vol"}, "linear"
	if err := CloseNamed(m, "vol"); err == nil || len(m.live) != 1 {
		t.Errorf("somebody's linear mapping: %v", err)
	}
}

// TestCreateWatched: a daemon that looks at every new device has each mapping of a new volume open for a moment, and none
// of them stays for that: a volume that is made and then not counted would never open.
func TestCreateWatched(t *testing.T) {
	c := layouts["hmac"]
	c.Replay = true
	for busy := 1; busy <= 3; busy++ {
		path := filepath.Join(t.TempDir(), "disk")
		m, p := newMapper(t), &party{}
		m.busyAt = busy
		v := Volumes{Mapper: m, Keys: newSecret(), Counter: p, opener: opener(path)}
		if err := v.create(t.Context(), c, "/dev/vdb", openDisk(t, path, deviceSize), Zeros{}); err != nil || p.last.Number != 1 {
			t.Errorf("step %d: %v, counted %+v", busy, err, p.last)
		}
		m.checkClean(t)
	}
}
