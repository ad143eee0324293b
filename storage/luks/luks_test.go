// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var (
	cheap      = Cost{KDF: KDFPBKDF2, Iterations: minIterations}
	passphrase = []byte("correct horse")
)

// disk is a device in memory. It counts what is written to it.
type disk struct {
	b      []byte
	grows  bool
	writes int
	budget int // writes that succeed; negative: all
}

func newDisk(size int) *disk { return &disk{b: make([]byte, size), budget: -1} }

func (d *disk) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(d.b).ReadAt(p, at)
}

func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	if d.writes == d.budget {
		return 0, errors.New("power is gone")
	}
	d.writes++
	if end := int(at) + len(p); end > len(d.b) {
		if !d.grows {
			return 0, io.ErrShortWrite
		}
		d.b = append(d.b, make([]byte, end-len(d.b))...)
	}
	return copy(d.b[at:], p), nil
}

func (d *disk) Sync() error { return nil }

func attached() Layout {
	return Layout{Type: TypeLUKS2, Cipher: CipherAESXTS, SectorSize: 4096, Offset: minNewOffset}
}

func layouts() []Layout {
	hmac, aegis, small, sized, apart := attached(), attached(), attached(), attached(), attached()
	hmac.Integrity = IntegrityHMACSHA256
	aegis.Cipher, aegis.Integrity = CipherAEGIS128, IntegrityAEAD
	small.SectorSize = 512
	sized.Size = 8192
	apart.Detached, apart.Offset = true, 0
	return []Layout{attached(), hmac, aegis, small, sized, apart}
}

func create(t testing.TB, l Layout) (*disk, *Volume) {
	t.Helper()
	d := newDisk(2 << 20)
	if l.Detached {
		d = newDisk(0)
		d.grows = true
	}
	v, err := Create(d, l, passphrase, cheap)
	if err != nil {
		t.Fatal(err)
	}
	return d, v
}

func TestCreateThenOpen(t *testing.T) {
	for _, l := range layouts() {
		d, v := create(t, l)
		got, err := Open(context.Background(), d, passphrase, Expect{Layout: l, OwnHeader: true})
		if err != nil {
			t.Errorf("%+v: %v", l, err)
			continue
		}
		if !bytes.Equal(got.Key, v.Key) || got.UUID != v.UUID || got.Layout != l {
			t.Errorf("opened %+v, created %+v", got, v)
		}
		got.Close()
		if !zero(got.Key) {
			t.Error("Close leaves the key")
		}
		before := bytes.Clone(d.b)
		if _, err := Open(context.Background(), d, []byte("wrong"), Expect{Layout: l}); !errors.Is(err, ErrWrongKey) {
			t.Errorf("wrong passphrase: %v", err)
		}
		if !bytes.Equal(before, d.b) {
			t.Error("Open wrote")
		}
	}
}

func TestCreateWithEachKDF(t *testing.T) {
	for _, c := range []Cost{cheap, {KDF: KDFArgon2id, Passes: 1, MemoryKiB: 64, Lanes: 2}, {KDF: KDFArgon2i, Passes: 1, MemoryKiB: 64, Lanes: 1}} {
		d := newDisk(2 << 20)
		v, err := Create(d, attached(), passphrase, c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Open(context.Background(), d, passphrase, Expect{Layout: attached(), OwnHeader: true})
		if err != nil || !bytes.Equal(got.Key, v.Key) {
			t.Errorf("%s: %v", c.KDF, err)
		}
	}
}

// Every difference between what is measured and what the header says is named, before a passphrase is tried.
func TestExpectedLayout(t *testing.T) {
	d, _ := create(t, attached())
	for _, tt := range []struct {
		change func(*Layout)
		fields []string
	}{
		{func(l *Layout) { l.Type, l.SectorSize = TypeLUKS1, 512 }, []string{"type", "sector size"}},
		{func(l *Layout) { l.Integrity = IntegrityHMACSHA256 }, []string{"integrity"}},
		{func(l *Layout) { l.Cipher, l.Integrity = CipherAEGIS128, IntegrityAEAD }, []string{"cipher", "integrity"}},
		{func(l *Layout) { l.Offset += 4096 }, []string{"offset"}},
		{func(l *Layout) { l.Size = 4096 }, []string{"size"}},
	} {
		l := attached()
		tt.change(&l)
		_, err := Open(context.Background(), d, []byte("wrong"), Expect{Layout: l})
		if errors.Is(err, ErrWrongKey) {
			t.Errorf("%v: the passphrase was tried", tt.fields)
		}
		var found []string
		var joined interface{ Unwrap() []error }
		if errors.As(err, &joined) {
			for _, e := range joined.Unwrap() {
				var m *Mismatch
				if errors.As(e, &m) {
					found = append(found, m.Field)
				}
			}
		}
		if fmt.Sprint(found) != fmt.Sprint(tt.fields) {
			t.Errorf("differences %v, want %v (%v)", found, tt.fields, err)
		}
	}
}

func TestCreateOnlyOverZeros(t *testing.T) {
	for name, at := range map[string]int{"LUKS": 0, "ext4 superblock": 1024 + 56, "secondary": minHeader, "first data": minNewOffset, "last byte": minNewOffset + 4095} {
		d := newDisk(2 << 20)
		d.b[at] = 0x53
		if _, err := Create(d, attached(), passphrase, cheap); !errors.Is(err, ErrNotBlank) || d.writes != 0 {
			t.Errorf("%s: %v after %d writes", name, err, d.writes)
		}
	}
	d, _ := create(t, attached())
	d.writes = 0
	if _, err := Create(d, attached(), passphrase, cheap); !errors.Is(err, ErrNotBlank) || d.writes != 0 {
		t.Errorf("own volume: %v after %d writes", err, d.writes)
	}
	short := newDisk(minNewOffset)
	if _, err := Create(short, attached(), passphrase, cheap); !errors.Is(err, io.ErrUnexpectedEOF) || short.writes != 0 {
		t.Errorf("short device: %v after %d writes", err, short.writes)
	}
}

func TestPowerCutWhileCreating(t *testing.T) {
	for budget := range 3 {
		d := newDisk(2 << 20)
		d.budget = budget
		if _, err := Create(d, attached(), passphrase, cheap); err == nil {
			t.Fatalf("%d writes: created", budget)
		}
		if _, err := Open(context.Background(), d, passphrase, Expect{Layout: attached()}); err == nil || errors.Is(err, ErrWrongKey) {
			t.Errorf("%d writes: %v", budget, err)
		}
	}
}

func TestRefusedCreations(t *testing.T) {
	for _, tt := range []struct {
		change func(*Layout, *Cost)
		want   string
	}{
		{func(l *Layout, _ *Cost) { l.Type = TypeLUKS1; l.SectorSize = 512 }, `type "luks1"`},
		{func(l *Layout, _ *Cost) { l.Cipher = "cipher_null-ecb" }, "cipher_null"},
		{func(l *Layout, _ *Cost) { l.Cipher = "aes-cbc-essiv:sha256" }, "cbc"},
		{func(l *Layout, _ *Cost) { l.Cipher = CipherAEGIS128 }, "integrity"},
		{func(l *Layout, _ *Cost) { l.SectorSize = 1024 }, "sector size 1024"},
		{func(l *Layout, _ *Cost) { l.Offset = 0 }, "offset 0"},
		{func(l *Layout, _ *Cost) { l.Size = 100 }, "size 100"},
		{func(_ *Layout, c *Cost) { c.Iterations = 1 }, "1 iterations"},
		{func(_ *Layout, c *Cost) { *c = Cost{KDF: "scrypt"} }, `"scrypt"`},
		{func(_ *Layout, c *Cost) { *c = Cost{KDF: KDFArgon2id, Passes: 1, MemoryKiB: 4 << 20, Lanes: 1} }, "4194304 KiB"},
	} {
		l, c, d := attached(), cheap, newDisk(2<<20)
		tt.change(&l, &c)
		if _, err := Create(d, l, passphrase, c); err == nil || !strings.Contains(err.Error(), tt.want) || d.writes != 0 {
			t.Errorf("%v after %d writes, want %q", err, d.writes, tt.want)
		}
	}
}

func TestDataSize(t *testing.T) {
	for _, tt := range []struct {
		size, device, want uint64
	}{
		{0, minNewOffset + 8192, 8192},
		{0, minNewOffset, 0},
		{0, minNewOffset - 1, 0},
		{0, minNewOffset + 8191, 0},
		{8192, minNewOffset + 8192, 8192},
		{8192, minNewOffset + 16384, 8192},
		{8192, minNewOffset + 4096, 0}, // truncated device
	} {
		l := attached()
		l.Size = tt.size
		got, err := (&Volume{Layout: l}).DataSize(tt.device)
		if got != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("%+v: %d, %v", tt, got, err)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	d, _ := create(t, attached())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, d, passphrase, Expect{Layout: attached()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// rewrite changes the metadata of both copies as text and makes their checksums right again.
func rewrite(t testing.TB, b []byte, change func(string) string) {
	t.Helper()
	old, _, _ := bytes.Cut(b[binarySize:minHeader], []byte{0})
	text := change(string(old))
	if text == string(old) {
		t.Fatal("the change changes nothing")
	}
	for _, at := range []int{0, minHeader} {
		part := b[at : at+minHeader]
		clear(part[binarySize:])
		copy(part[binarySize:], text)
		reseal(part)
	}
}

func reseal(part []byte) {
	sum := checksum(part)
	clear(part[v2Checksum:v2End])
	copy(part[v2Checksum:], sum[:])
}

func swap(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

func both(b []byte, change func(part []byte)) {
	for _, at := range []int{0, minHeader} {
		change(b[at : at+minHeader])
		reseal(b[at : at+minHeader])
	}
}

func put64(at int, v uint64) func([]byte) {
	return func(part []byte) { binary.BigEndian.PutUint64(part[at:], v) }
}
