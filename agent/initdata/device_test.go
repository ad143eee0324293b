// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func mustDevice(t testing.TB, doc []byte) []byte {
	t.Helper()
	b, err := Device(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDevice(t *testing.T) {
	for _, doc := range []string{"x", sample, strings.Repeat("a", MaxSize)} {
		b := mustDevice(t, []byte(doc))
		got, err := ReadDevice(bytes.NewReader(b))
		if err != nil || string(got) != doc {
			t.Errorf("a document of %d bytes: got %d, %v", len(doc), len(got), err)
		}
		if len(b)%512 != 0 || string(b[:8]) != "initdata" {
			t.Errorf("%d bytes that begin with %q", len(b), b[:8])
		}
	}
}

func TestReadDeviceRefuses(t *testing.T) {
	good := mustDevice(t, []byte(sample))
	size := binary.LittleEndian.Uint64(good[8:])
	withSize := func(n uint64) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[8:], n)
		return b
	}
	for name, tt := range map[string]struct {
		device []byte
		want   string
	}{
		"empty":                         {nil, "no initdata device"},
		"of zeros":                      {make([]byte, 4096), "no initdata device"},
		"magic alone":                   {[]byte(deviceMagic), "no initdata device"},
		"another magic":                 {append([]byte("INITDATA"), good[8:]...), "no initdata device"},
		"length zero":                   {withSize(0), "length 0"},
		"length that would fill memory": {withSize(1 << 62), "length 4611686018427387904"},
		"length behind the end":         {withSize(uint64(len(good))), "of 512 bytes"},
		"length cut":                    {withSize(size - 1), "EOF"},
		"something behind the document": {withSize(size + 1), "1 bytes behind"},
		"no gzip":                       {append(bytes.Clone(good[:16]), make([]byte, 512)...), "gzip"},
		"changed byte":                  {flipped(good, 40), "reading an initdata device"},
		"packed to explode":             {mustDevice(t, make([]byte, 64<<20)), "want 1 to"},
		"packed nothing":                {mustDevice(t, nil), "want 1 to"},
	} {
		doc, err := ReadDevice(bytes.NewReader(tt.device))
		if err == nil || doc != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d bytes, %v, want %q", name, len(doc), err, tt.want)
		}
		if errors.Is(err, ErrNoDevice) != strings.HasPrefix(tt.want, "no ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func FuzzReadDevice(f *testing.F) {
	f.Add(mustDevice(f, []byte(sample)))
	f.Add([]byte(deviceMagic + "\x01\x00\x00\x00\x00\x00\x00\x00\x1f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := ReadDevice(bytes.NewReader(b))
		if err == nil && (len(doc) == 0 || len(doc) > MaxSize || !bytes.HasPrefix(b, []byte(deviceMagic))) {
			t.Errorf("%d bytes taken out of %x", len(doc), b[:min(len(b), 16)])
		}
	})
}
