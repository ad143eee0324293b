// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

func TestDisk(t *testing.T) {
	raw, err := Encode(evidence.SHA256, map[string]string{"casemate.toml": `workload = "web"`})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := WriteDisk(raw)
	if err != nil {
		t.Fatal(err)
	}
	if on, err := OnDisk(bytes.NewReader(disk)); err != nil || !on || len(disk)%512 != 0 {
		t.Errorf("%v, %v, %d bytes", on, err, len(disk))
	}
	got, err := ReadDisk(bytes.NewReader(disk))
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("got %q, %v", got, err)
	}
	for name, head := range map[string]string{"another disk": "\x00\x00\x00\x00\x00\x00\x00\x00\x00", "nothing": "", "its beginning alone": "initdat"} {
		if on, err := OnDisk(strings.NewReader(head)); on || err != nil {
			t.Errorf("%s: %v, %v", name, on, err)
		}
	}
}

// member is one gzip file.
func member(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	if _, err := zip.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func framed(size uint64, content []byte) []byte {
	return append(binary.LittleEndian.AppendUint64([]byte(diskMagic), size), content...)
}

func TestReadDiskRefuses(t *testing.T) {
	good := member(t, []byte("version"))
	size := uint64(len(good))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-5] ^= 1 // the sum
	bomb := member(t, make([]byte, 64<<20))
	for _, tt := range []struct {
		name, want string
		disk       []byte
	}{
		{"another disk", "it begins with", bytes.Repeat([]byte{1}, 512)},
		{"a cut head", "head", []byte("initdata\x01")},
		{"no content", "0 compressed bytes", framed(0, nil)},
		{"a length beyond any document", "compressed bytes, want", framed(1<<63, good)},
		{"a length over the cap", "compressed bytes, want", framed(maxCompressed+1, good)},
		{"truncated", "it ends before", framed(size+1, good)},
		{"a cut gzip file", "unexpected EOF", framed(size-1, good)},
		{"not gzip", "gzip", framed(16, bytes.Repeat([]byte{'a'}, 16))},
		{"a wrong sum", "checksum", framed(size, flipped)},
		{"a bomb", "when unpacked", framed(uint64(len(bomb)), bomb)},
		{"a second document", "behind the end", framed(2*size, append(bytes.Clone(good), good...))},
		{"bytes behind the document", "behind the end", framed(size+1, append(bytes.Clone(good), 0))},
	} {
		if out, err := ReadDisk(bytes.NewReader(tt.disk)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d bytes, %v, want %q", tt.name, len(out), err, tt.want)
		}
	}
}

func FuzzReadDisk(f *testing.F) {
	good := member(f, []byte("version"))
	f.Add(framed(uint64(len(good)), good))
	f.Add([]byte(diskMagic))
	f.Fuzz(func(t *testing.T, disk []byte) {
		raw, err := ReadDisk(bytes.NewReader(disk))
		if err != nil {
			return
		}
		if len(raw) > MaxSize {
			t.Errorf("%d bytes", len(raw))
		}
		if _, err := Parse(raw); err != nil {
			return
		}
		again, err := WriteDisk(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ReadDisk(bytes.NewReader(again)); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("written and read: %v", err)
		}
	})
}
