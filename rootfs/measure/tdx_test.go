// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

// secondMRTD is another way to the same value, without the code under test: it finds
// the descriptor by its text, makes a list of what is hashed, and hashes it at once.
func secondMRTD(t testing.TB, image []byte, sectionwise bool) string {
	t.Helper()
	at := bytes.LastIndex(image, []byte("TDVF"))
	if at < 0 {
		t.Fatal("no descriptor")
	}
	u32 := func(o int) int { return int(binary.LittleEndian.Uint32(image[at+o:])) }
	u64 := func(o int) int { return int(binary.LittleEndian.Uint64(image[at+o:])) }
	add := func(gpa int) string {
		return "MEM.PAGE.ADD\x00\x00\x00\x00" + string(binary.LittleEndian.AppendUint64(nil, uint64(gpa))) + strings.Repeat("\x00", 104)
	}
	var stream []string
	for i := range u32(12) {
		o := 16 + 32*i
		offset, raw, gpa, size, attributes := u32(o), u32(o+4), u64(o+8), u64(o+16), u32(o+28)
		if attributes&2 != 0 {
			continue
		}
		memory := append(bytes.Clone(image[offset:offset+raw]), make([]byte, size-raw)...)
		var extends []string
		for chunk := range size / 256 {
			if sectionwise || chunk%16 == 0 {
				if chunk%16 == 0 {
					stream = append(stream, add(gpa+chunk*256))
				}
			}
			if attributes&1 == 0 {
				continue
			}
			text := "MR.EXTEND" + strings.Repeat("\x00", 7) + string(binary.LittleEndian.AppendUint64(nil, uint64(gpa+chunk*256))) +
				strings.Repeat("\x00", 104) + string(memory[chunk*256:][:256])
			if sectionwise {
				extends = append(extends, text)
			} else {
				stream = append(stream, text)
			}
		}
		stream = append(stream, extends...)
	}
	d := sha512.Sum384([]byte(strings.Join(stream, "")))
	return hex.EncodeToString(d[:])
}

// checkMRTD compares both ways in both orders.
func checkMRTD(t *testing.T, image []byte) {
	t.Helper()
	f, err := ParseFirmware(image)
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	for _, order := range []TDXPageOrder{ExtendEachPage, ExtendEachSection} {
		got, err := f.MRTD(order)
		if err != nil {
			t.Fatal(err)
		}
		text := hex.EncodeToString(got[:])
		if want := secondMRTD(t, image, order == ExtendEachSection); text != want {
			t.Errorf("order %d: got %s, want %s", order, text, want)
		}
		if text == seen {
			t.Error("the order has no effect")
		}
		seen = text
		t.Logf("order %d: MRTD %s", order, text)
	}
}

func TestMRTD(t *testing.T) {
	checkMRTD(t, measuretest.TDVF(measuretest.TDVFSections()...))
	f, err := ParseFirmware(measuretest.TDVF(measuretest.TDVFSections()...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.MRTD(0); err == nil {
		t.Error("an order that nobody chose is taken")
	}
}

// Measured bytes show; the variables, which OVMF does not have measured, do not.
func TestMRTDCovers(t *testing.T) {
	value := func(change func(image []byte, s []measuretest.TDVFSection)) [48]byte {
		t.Helper()
		sections := measuretest.TDVFSections()
		change(nil, sections)
		image := measuretest.TDVF(sections...)
		change(image, sections)
		f, err := ParseFirmware(image)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.MRTD(ExtendEachPage)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	on := func(at int) func([]byte, []measuretest.TDVFSection) {
		return func(b []byte, _ []measuretest.TDVFSection) {
			if b != nil {
				b[at] ^= 1
			}
		}
	}
	base := value(func([]byte, []measuretest.TDVFSection) {})
	for name, tt := range map[string]struct {
		change func([]byte, []measuretest.TDVFSection)
		shows  bool
	}{
		"first byte of code": {on(0x1000), true},
		"last byte of code":  {on(0x2fff), true},
		"variables":          {on(0x0800), false},
		"stack moved":        {func(_ []byte, s []measuretest.TDVFSection) { s[2].Address = 0x900000 }, true},
		"stack grown":        {func(_ []byte, s []measuretest.TDVFSection) { s[2].Size = 0x4000 }, true},
		"variables measured": {func(_ []byte, s []measuretest.TDVFSection) { s[1].Attributes = 1 }, true},
		"order of sections":  {func(_ []byte, s []measuretest.TDVFSection) { s[1], s[2] = s[2], s[1] }, true},
	} {
		if got := value(tt.change); (got != base) != tt.shows {
			t.Errorf("%s: MRTD changed: %v, want %v", name, got != base, tt.shows)
		}
	}
}

func TestMRTDRefuses(t *testing.T) {
	type list = []measuretest.TDVFSection
	for name, tt := range map[string]struct {
		change func(list) list
		want   string
	}{
		"no sections":                   {func(list) list { return nil }, "0 sections"},
		"code not measured":             {func(s list) list { s[0].Attributes = 0; return s }, "any code would have"},
		"variables only":                {func(s list) list { s[1].Attributes = 1; return s[1:2] }, "any code would have"},
		"code over the image":           {func(s list) list { s[0].Offset = 0x1001; return s }, "in an image of"},
		"offset wraps around":           {func(s list) list { s[0].Offset = 0xfffff000; return s }, "in an image of"},
		"code longer than its memory":   {func(s list) list { s[0].Size = 0x1000; return s }, "for 4096 bytes of memory"},
		"code shorter than its memory":  {func(s list) list { s[0].Raw = 0x1000; return s }, "volume of 4096"},
		"stack with content":            {func(s list) list { s[2].Raw = 16; return s }, "has content"},
		"VMM's blocks measured":         {func(s list) list { s[3].Attributes = 1; return s }, "VMM makes"},
		"code added later":              {func(s list) list { s[0].Attributes = 3; return s }, "has attributes 0x3"},
		"unknown attribute":             {func(s list) list { s[0].Attributes = 5; return s }, "attributes 0x5"},
		"unknown type":                  {func(s list) list { s[2].Kind = 7; return s }, "type 7"},
		"half a page":                   {func(s list) list { s[2].Size = 0x800; return s }, "whole pages"},
		"address in a page":             {func(s list) list { s[2].Address++; return s }, "whole pages"},
		"no size":                       {func(s list) list { s[2].Size = 0; return s }, "whole pages"},
		"size without end":              {func(s list) list { s[2].Size = 1 << 62; return s }, "whole pages"},
		"address wraps around":          {func(s list) list { s[2].Address = 1<<64 - 4096; return s }, "whole pages"},
		"too much memory":               {func(s list) list { s[2].Size, s[3].Size, s[3].Address = maxDeclared, 4096, 1<<40; return s }, "cover over"},
		"stack over the blocks":         {func(s list) list { s[2].Address = 0x808000; return s }, "overlap"},
		"more sections than are hashed": {func(s list) list { return append(s, make(list, maxSections-len(s)+1)...) }, "sections, want"},
	} {
		t.Run(name, func(t *testing.T) {
			// The longest list does not fit before the footer: only its count is read.
			sections := tt.change(measuretest.TDVFSections())
			image := measuretest.TDVF(sections[:min(len(sections), 20)]...)
			binary.LittleEndian.PutUint32(image[measuretest.TDVFMetadata+12:], uint32(len(sections)))
			f, err := ParseFirmware(image)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.MRTD(ExtendEachPage)
			if err == nil || got != [48]byte{} || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %x, %v, want %q", got, err, tt.want)
			}
		})
	}
	for name, tt := range map[string]struct {
		at   int
		with string
		want string
	}{
		"signature": {0, "TDVX", "signature"},
		"length":    {4, "\x00\x00\x00\x00", "in 0 bytes"},
		"version":   {8, "\x02", "version 2"},
	} {
		f, err := ParseFirmware(patched(measuretest.TDVF(measuretest.TDVFSections()...), measuretest.TDVFMetadata+tt.at, []byte(tt.with)...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.MRTD(ExtendEachPage); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	f, err := ParseFirmware(snpFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.MRTD(ExtendEachPage); err == nil {
		t.Error("the last page of a firmware has an MRTD")
	}
	delete(f.entries, guidTDVFMetadata)
	if _, err := f.MRTD(ExtendEachPage); !errors.Is(err, ErrNoTDVF) {
		t.Errorf("got %v, want ErrNoTDVF", err)
	}
}

func TestRTMRs(t *testing.T) {
	u := exampleUKI(t, nil)
	got, err := (&TDXBoot{UKI: u}).RTMRs()
	if err != nil {
		t.Fatal(err)
	}
	replay := func(events ...[]byte) string {
		value := make([]byte, 48)
		for _, e := range events {
			d := sha512.Sum384(append(value, e...))
			value = d[:]
		}
		return hex.EncodeToString(value)
	}
	hashed := func(text string) []byte { d := sha512.Sum384([]byte(text)); return d[:] }
	rtmr1 := replay(u.program.Authenticode(crypto.SHA384), hashed("Calling EFI Application from Boot Option"), hashed("\x00\x00\x00\x00"),
		u.kernel.Authenticode(crypto.SHA384), hashed("Exit Boot Services Invocation"), hashed("Exit Boot Services Returned with Success"))
	if hex.EncodeToString(got.RTMR1) != rtmr1 {
		t.Errorf("RTMR 1: got %x, want %s", got.RTMR1, rtmr1)
	}
	if rtmr2 := replay(hashed("q\x00u\x00i\x00e\x00t\x00\x00\x00"), hashed("initrd")); hex.EncodeToString(got.RTMR2) != rtmr2 {
		t.Errorf("RTMR 2: got %x, want %s", got.RTMR2, rtmr2)
	}
	if _, err := (&TDXBoot{UKI: u, LoadOptions: "\x00"}).RTMRs(); err == nil {
		t.Error("load options with a NUL are taken")
	}
}

func FuzzTDVF(f *testing.F) {
	f.Add(measuretest.TDVF(measuretest.TDVFSections()...)[0x2000:])
	f.Fuzz(func(t *testing.T, image []byte) {
		firmware, err := ParseFirmware(image)
		if err != nil {
			return
		}
		sections, err := firmware.tdvfSections()
		for _, s := range sections {
			if uint64(len(s.content)) > s.size || s.size > maxDeclared || err != nil {
				t.Fatalf("%d bytes for %d, %v", len(s.content), s.size, err)
			}
		}
	})
}
