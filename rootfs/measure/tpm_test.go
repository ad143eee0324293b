// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func exampleUKI(t *testing.T, change func([]byte)) *UKI {
	t.Helper()
	image := measuretest.UKI("kernel", "quiet", "initrd")
	if change != nil {
		change(image)
	}
	u, err := ParseUKI(image)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// extended replays events into a register of SHA-256.
func extended(events ...[]byte) string {
	value := make([]byte, sha256.Size)
	for _, e := range events {
		d := sha256.Sum256(append(value, e...))
		value = d[:]
	}
	return hex.EncodeToString(value)
}

func sum(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:]
}

// The registers are built from single events, whose order a real boot gave (see the
// interop test).
func TestPCRs(t *testing.T) {
	u := exampleUKI(t, nil)
	program, kernel := u.program.Authenticode(crypto.SHA256), u.kernel.Authenticode(crypto.SHA256)
	action, separator := sum("Calling EFI Application from Boot Option"), sum("\x00\x00\x00\x00")
	line := sum("q\x00u\x00i\x00e\x00t\x00\x00\x00")
	for _, tt := range []struct {
		name                     string
		boot                     TPMBoot
		pcr4, pcr9, pcr11, pcr12 string
	}{
		{"disk", TPMBoot{UKI: u}, extended(action, separator, program, kernel), extended(line, sum("initrd")), "", extended()},
		{"QEMU kernel", TPMBoot{UKI: u, QEMUKernel: true}, extended(program, action, separator, kernel), extended(line, sum("initrd")), "", extended()},
		{"load options", TPMBoot{UKI: u, LoadOptions: "a"}, extended(action, separator, program, kernel), extended(sum("a\x00\x00\x00"), sum("initrd")), "", extended(sum("a\x00\x00\x00"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.boot.PCRs(crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			pcr11 := extended(sum(".linux\x00"), sum(string(u.Linux)), sum(".osrel\x00"), sum("ID=test\n"), sum(".cmdline\x00"), sum("quiet"), sum(".initrd\x00"), sum("initrd"))
			for _, v := range []struct {
				name, want string
				got        []byte
			}{{"PCR 4", tt.pcr4, got.PCR4}, {"PCR 9", tt.pcr9, got.PCR9}, {"PCR 11", pcr11, got.PCR11}, {"PCR 12", tt.pcr12, got.PCR12}} {
				if hex.EncodeToString(v.got) != v.want {
					t.Errorf("%s: got %x, want %s", v.name, v.got, v.want)
				}
			}
		})
	}
}

// Every change of an artifact shows in the register that stands for it.
func TestPCRsCoverEveryInput(t *testing.T) {
	base := TPMBoot{UKI: exampleUKI(t, nil)}
	want, err := base.PCRs(crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(text string) *UKI {
		return exampleUKI(t, func(b []byte) { b[bytes.LastIndex(b, []byte(text))] ^= 1 })
	}
	for name, tt := range map[string]struct {
		text              string
		pcr4, pcr9, pcr11 bool
	}{
		"stub":         {"stub\x00\x00", true, false, false},
		"kernel":       {"kernel", true, false, true},
		"os-release":   {"ID=test", true, false, true},
		"command line": {"quiet", true, true, true},
		"initrd":       {"initrd", true, true, true},
	} {
		got, err := (&TPMBoot{UKI: flip(tt.text)}).PCRs(crypto.SHA384)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got.PCR4, want.PCR4) == tt.pcr4 || bytes.Equal(got.PCR9, want.PCR9) == tt.pcr9 || bytes.Equal(got.PCR11, want.PCR11) == tt.pcr11 {
			t.Errorf("%s changed: PCR 4 %x, PCR 9 %x, PCR 11 %x", name, got.PCR4, got.PCR9, got.PCR11)
		}
		if len(got.PCR12) != 48 || !bytes.Equal(got.PCR12, want.PCR12) {
			t.Errorf("%s changed: PCR 12 %x", name, got.PCR12)
		}
	}
}

func TestPCRsRefuses(t *testing.T) {
	u := exampleUKI(t, nil)
	if got, err := (&TPMBoot{UKI: u}).PCRs(crypto.SHA1); err == nil {
		t.Errorf("SHA-1: %+v", got)
	}
	if got, err := (&TPMBoot{UKI: u, LoadOptions: "a\n"}).PCRs(crypto.SHA256); err == nil {
		t.Errorf("line end: %+v", got)
	}
}

func TestInitDataPCR8(t *testing.T) {
	digest := sha256.Sum256([]byte("initdata"))
	if got := InitDataPCR8(digest); hex.EncodeToString(got) != extended(digest[:]) {
		t.Errorf("got %x", got)
	}
}

func TestParseUKIRefuses(t *testing.T) {
	section := func(name string) measuretest.Section {
		return measuretest.Section{Name: name, Content: []byte("x")}
	}
	rename := func(b []byte, from, to string) []byte {
		i := bytes.Index(b, []byte(from))
		clear(b[i : i+8])
		copy(b[i:i+8], to)
		return b
	}
	// entry is the section table's entry with that name.
	entry := func(b []byte, name string) []byte { return b[bytes.Index(b, []byte(name)):] }
	good := func() []byte { return measuretest.UKI("kernel", "quiet", "initrd") }
	long, overlap := good(), good()
	binary.LittleEndian.PutUint32(entry(long, ".initrd")[8:], 513)
	copy(entry(overlap, ".initrd")[12:16], entry(overlap, ".linux")[12:16])
	for name, tt := range map[string]struct {
		image []byte
		want  string
	}{
		"not a PE":                     {[]byte("MZ"), "no MZ"},
		"not a UKI":                    {measuretest.PE(nil, section(".text")), "no systemd-stub"},
		"no mark of a stub":            {bytes.Replace(good(), []byte("LoaderInfo"), []byte("loaderinfo"), 1), "no systemd-stub"},
		"another stub":                 {bytes.Replace(good(), []byte("stub 252"), []byte("stub 255"), 1), `"255.39-1": only version 252`},
		"stub 2520":                    {bytes.Replace(good(), []byte("stub 252."), []byte("stub 2520"), 1), "only version 252"},
		"no kernel":                    {rename(good(), ".linux", ".lin"), "no section .linux"},
		"no initrd":                    {rename(good(), ".initrd", ".init"), "no section .initrd"},
		"no command line":              {rename(good(), ".cmdline", ".cmd"), "no section .cmdline"},
		"section by another name":      {rename(good(), ".initrd", ".osrel"), "twice"},
		"two initrds":                  {measuretest.UKI("k", "quiet", "i", section(".initrd")), "twice"},
		"splash":                       {measuretest.UKI("k", "quiet", "i", section(".splash")), ".splash"},
		"device tree":                  {measuretest.UKI("k", "quiet", "i", section(".dtb")), ".dtb"},
		"policy signature":             {measuretest.UKI("k", "quiet", "i", section(".pcrsig")), ".pcrsig"},
		"line end in the command line": {measuretest.UKI("k", "quiet\n", "i"), "byte 0x0a at 5"},
		"NUL in the command line":      {measuretest.UKI("k", "quiet\x00init=/x", "i"), "byte 0x00 at 5"},
		"other letters":                {measuretest.UKI("k", "é", "i"), "byte 0xc3"},
		"long command line":            {measuretest.UKI("k", strings.Repeat("a", 2048), "i"), "2048 bytes"},
		"initrd longer than its file":  {long, "513 bytes in memory"},
		"initrd over kernel in memory": {overlap, "overlap in memory"},
		"kernel section is not PE":     {measuretest.PE(nil, section(".text"), measuretest.Section{Name: ".sdmagic", Content: []byte("#### LoaderInfo: systemd-stub 252 ####")}, section(".linux"), section(".cmdline"), section(".initrd")), "section .linux"},
		"empty command line":           {measuretest.UKI("k", "", "i"), ".cmdline"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseUKI(tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
