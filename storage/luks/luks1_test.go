// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// payload1 is where `buildah mkcw` lets the data begin.
const payload1 = 4040 * sector

// header1 is the header of such a disk, with its slots disabled.
func header1(cipher, mode, hash string) []byte {
	b := make([]byte, binarySize)
	copy(b, magicPrimary)
	b[7] = 1
	copy(b[v1Cipher:], cipher)
	copy(b[v1Mode:], mode)
	copy(b[v1Hash:], hash)
	binary.BigEndian.PutUint32(b[v1Payload:], payload1/sector)
	binary.BigEndian.PutUint32(b[v1KeyBytes:], 64)
	binary.BigEndian.PutUint32(b[v1Iterations:], 4000)
	copy(b[v1UUID:], "01234567-89ab-cdef-0123-456789abcdef")
	for i := range v1SlotCount {
		s := b[v1Slots+i*v1SlotSize:]
		binary.BigEndian.PutUint32(s, v1Disabled)
		binary.BigEndian.PutUint32(s[40:], uint32(8+504*i))
		binary.BigEndian.PutUint32(s[44:], stripes)
	}
	return b
}

// disk1 makes a disk with the key in slot number n.
func disk1(t *testing.T, hash string, n int) (*disk, []byte) {
	t.Helper()
	key, b := random(64), header1("aes", "xts-plain64", hash)
	d := digest{hash: hash, iterations: 4000, salt: random(v1SaltSize), sum: make([]byte, v1DigestSize)}
	copy(b[v1Salt:], d.salt)
	copy(b[v1Digest:], d.of(key))
	s := slot{id: n, afHash: hash, keySize: 64, kdf: kdf{Type: KDFPBKDF2, Hash: hash, Iterations: 1000, Salt: random(32)}}
	area, err := s.lock(key, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	at := b[v1Slots+n*v1SlotSize:]
	binary.BigEndian.PutUint32(at, v1Active)
	binary.BigEndian.PutUint32(at[4:], 1000)
	copy(at[8:], s.kdf.Salt)
	out := newDisk(payload1 + 4096)
	copy(out.b, b)
	copy(out.b[(8+504*n)*sector:], area)
	return out, key
}

func mkcwLayout() Layout {
	return Layout{Type: TypeLUKS1, Cipher: CipherAESXTS, SectorSize: 512, Offset: payload1}
}

func TestOpenLUKS1(t *testing.T) {
	for n, hash := range []string{"sha256", "sha1", "sha512"} {
		d, key := disk1(t, hash, n)
		v, err := Open(context.Background(), d, passphrase, Expect{Layout: mkcwLayout()})
		if err != nil || !bytes.Equal(v.Key, key) {
			t.Errorf("%s: %v", hash, err)
		}
		if _, err := Open(context.Background(), d, []byte("wrong"), Expect{Layout: mkcwLayout()}); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v", hash, err)
		}
	}
}

func TestHostileLUKS1(t *testing.T) {
	put := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) }
	}
	str := func(at int, s string) func([]byte) {
		return func(b []byte) { clear(b[at : at+32]); copy(b[at:], s) }
	}
	for _, tt := range []struct {
		name   string
		change func([]byte)
		want   string
	}{
		{"null cipher", func(b []byte) { str(v1Cipher, "cipher_null")(b); str(v1Mode, "ecb")(b) }, "cipher_null"},
		{"cbc", str(v1Mode, "cbc-essiv:sha256"), "cbc"},
		{"hash", str(v1Hash, "md5"), "md5"},
		{"name without an end", func(b []byte) { copy(b[v1Hash:], strings.Repeat("a", 32)) }, "clean end"},
		{"bytes behind a name", func(b []byte) { b[v1Hash+31] = 1 }, "clean end"},
		{"key of another size", put(v1KeyBytes, 32), "key of 32 bytes"},
		{"key without end", put(v1KeyBytes, 1<<31), "key of"},
		{"digest's iterations", put(v1Iterations, 1<<31), "iterations"},
		{"no digest iterations", put(v1Iterations, 0), "0 iterations"},
		{"slot's state", put(v1Slots+v1SlotSize, 7), "state 0x7"},
		{"slot's iterations", put(v1Slots+4, 1<<30), "iterations"},
		{"slot's stripes", put(v1Slots+44, 1), "1 stripes"},
		{"slot over the header", put(v1Slots+40, 0), "area of"},
		{"slot in the data", put(v1Slots+40, 4000), "area of"},
		{"slots overlap", func(b []byte) {
			copy(b[v1Slots+v1SlotSize:], b[v1Slots:v1Slots+v1SlotSize])
			put(v1Slots+v1SlotSize+40, 9)(b)
		}, "overlaps"},
		{"offset moved", put(v1Payload, 4048), "offset in the header"},
		{"offset zero", put(v1Payload, 0), "area of"},
		{"UUID", func(b []byte) { b[v1UUID] = '\n' }, "UUID"},
	} {
		d, _ := disk1(t, "sha256", 0)
		tt.change(d.b)
		if _, err := Open(context.Background(), d, passphrase, Expect{Layout: mkcwLayout()}); err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCreateLUKS1(t *testing.T) {
	d := newDisk(LUKS1Offset + 4096)
	v, err := CreateLUKS1(d, passphrase, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if v.Layout != mkcwLayout() {
		t.Errorf("layout %+v, want that of mkcw: %+v", v.Layout, mkcwLayout())
	}
	got, err := Open(context.Background(), d, passphrase, Expect{Layout: mkcwLayout()})
	if err != nil || !bytes.Equal(got.Key, v.Key) || got.UUID != v.UUID {
		t.Errorf("opening: %v", err)
	}
	if _, err := Open(context.Background(), d, passphrase, Expect{Layout: mkcwLayout(), OwnHeader: true}); err == nil {
		t.Error("LUKS1 passes for a header with casemate's token")
	}
	d.writes = 0
	if _, err := CreateLUKS1(d, passphrase, 1000); !errors.Is(err, ErrNotBlank) || d.writes != 0 {
		t.Errorf("over a volume: %v after %d writes", err, d.writes)
	}
	cut := newDisk(LUKS1Offset + 4096)
	cut.budget = 1
	if _, err := CreateLUKS1(cut, passphrase, 1000); err == nil {
		t.Error("created although the header was not written")
	}
	if _, err := Open(context.Background(), cut, passphrase, Expect{Layout: mkcwLayout()}); err == nil || errors.Is(err, ErrWrongKey) {
		t.Errorf("after a power cut: %v", err)
	}
}

// A key that was lost on its way opens and creates nothing.
func TestEmptyPassphrase(t *testing.T) {
	d, _ := create(t, attached())
	if _, err := Open(context.Background(), d, nil, Expect{Layout: attached()}); err == nil || errors.Is(err, ErrWrongKey) {
		t.Errorf("opening: %v", err)
	}
	blank := newDisk(4 << 20)
	_, err2 := Create(blank, attached(), nil, cheap)
	_, err1 := CreateLUKS1(blank, nil, 1000)
	if err2 == nil || err1 == nil || blank.writes != 0 {
		t.Errorf("creating: %v and %v after %d writes", err2, err1, blank.writes)
	}
}
