// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func examplePE() []byte {
	return measuretest.PE([]byte("12345678certificate"), measuretest.Section{Name: ".text", Content: []byte("code")},
		measuretest.Section{Name: ".data", Content: bytes.Repeat([]byte("d"), 600)})
}

// slowAuthenticode hashes as the format says it, section by section in the order of
// their place in the file, for comparison.
func slowAuthenticode(image []byte) []byte {
	le := binary.LittleEndian
	opt := measuretest.OptHeader
	headers := le.Uint32(image[opt+60:])
	d := sha256.New()
	d.Write(image[:opt+64])
	d.Write(image[opt+68 : opt+144])
	d.Write(image[opt+152 : headers])
	count := int(le.Uint16(image[measuretest.PEHeader+6:]))
	sections := make([][2]uint32, count)
	sum := headers
	for i := range sections {
		e := image[measuretest.SectionTable+40*i:]
		sections[i] = [2]uint32{le.Uint32(e[20:]), le.Uint32(e[16:])}
	}
	slices.SortFunc(sections, func(a, b [2]uint32) int { return int(a[0]) - int(b[0]) })
	for _, s := range sections {
		d.Write(image[s[0] : s[0]+s[1]])
		sum += s[1]
	}
	d.Write(image[sum : uint32(len(image))-le.Uint32(image[opt+148:])])
	return d.Sum(nil)
}

func TestAuthenticode(t *testing.T) {
	image := examplePE()
	hash := func() string {
		t.Helper()
		p, err := ParsePE(image)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(p.Authenticode(crypto.SHA256))
	}
	want := hash()
	if slow := hex.EncodeToString(slowAuthenticode(image)); slow != want {
		t.Fatalf("got %s, want %s", want, slow)
	}
	for i := range image {
		image[i] ^= 1
		p, err := ParsePE(image)
		if err == nil {
			free := i >= measuretest.OptHeader+64 && i < measuretest.OptHeader+68 || i >= len(image)-len("12345678certificate")
			if got := hex.EncodeToString(p.Authenticode(crypto.SHA256)); (got == want) != free {
				t.Errorf("byte %d changed: hash is the same: %v, want %v", i, got == want, free)
			}
		}
		image[i] ^= 1
	}
	if p, err := ParsePE(image); err != nil || len(p.Authenticode(crypto.SHA384)) != 48 {
		t.Errorf("SHA-384: %v", err)
	}
}

func TestParsePERefuses(t *testing.T) {
	const pe, opt, table = measuretest.PEHeader, measuretest.OptHeader, measuretest.SectionTable
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"nothing":                         {func([]byte) []byte { return nil }, "no MZ"},
		"a script":                        {func([]byte) []byte { return []byte(strings.Repeat("#!/bin/sh\n", 100)) }, "no MZ"},
		"header in the DOS header":        {put32(0x3c, 4), "header at 4"},
		"header after the end":            {put32(0x3c, 0xfffffff0), "header at 4294967280"},
		"no signature":                    {put32(pe, 0), "signature"},
		"another machine":                 {put16(pe+4, 0x14c), "machine 0x14c"},
		"no sections":                     {put16(pe+6, 0), "0 sections"},
		"more sections than file":         {put16(pe+6, 90), "in a file of"},
		"sections without number":         {put16(pe+6, 0xffff), "65535 sections"},
		"short optional header":           {put16(pe+20, 100), "optional header of 100"},
		"optional header over the end":    {put16(pe+20, 0xffff), "optional header of 65535"},
		"PE32":                            {put16(opt, 0x10b), "want PE32+"},
		"headers without section table":   {put32(opt+60, table), "headers of"},
		"headers over the end":            {put32(opt+60, 1<<31), "headers of"},
		"no entry for certificates":       {put32(opt+108, 4), "4 data directories"},
		"directories over the header":     {put32(opt+108, 16), "16 data directories"},
		"directories without number":      {put32(opt+108, 1<<31), "data directories"},
		"certificates in the middle":      {put32(opt+144, 1024), "not the end"},
		"certificates over the header":    {func(b []byte) []byte { put32(opt+144, 8)(b); return put32(opt+148, uint32(len(b)-8))(b) }, "not the end"},
		"certificates wrap around":        {func(b []byte) []byte { put32(opt+144, 0xffffffff)(b); return put32(opt+148, uint32(len(b)+1))(b) }, "not the end"},
		"bytes after the certificates":    {func(b []byte) []byte { return append(b, 0) }, "not the end"},
		"section over the headers":        {put32(table+20, 0), "want it at"},
		"section over another":            {put32(table+40+20, 512), "want it at"},
		"gap before a section":            {put32(table+20, 1024), "want it at"},
		"section over the certificates":   {put32(table+40+16, 1536), "ends at"},
		"section of nearly 4 GiB":         {put32(table+40+16, 0xffffffff), "ends at"},
		"section name with a hidden tail": {func(b []byte) []byte { b[table+7] = 'x'; return b }, "name has bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParsePE(tt.change(examplePE())); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParsePE(f *testing.F) {
	f.Add(examplePE())
	f.Add(measuretest.UKI("kernel", "quiet", "initrd"))
	f.Add(measuretest.Kernel("kernel"))
	f.Fuzz(func(t *testing.T, image []byte) {
		p, err := ParsePE(image)
		if err != nil {
			return
		}
		if p.checksum+4 > p.certificate || p.certificate+8 > p.headers || p.headers > p.end || p.end > len(image) {
			t.Fatalf("order of %+v", p)
		}
		p.Authenticode(crypto.SHA256)
		b := exampleKernelBoot()
		b.Kernel = image
		_, _ = b.PCRs(crypto.SHA256)
		if u, err := ParseUKI(image); err == nil {
			if _, err := (&TPMBoot{UKI: u}).PCRs(crypto.SHA256); err != nil {
				t.Fatal(err)
			}
		}
	})
}
