// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"fmt"
	"strings"
)

// stubSeries is the version of systemd-stub whose measurements are known here; later
// ones measure more sections.
const stubSeries = "252"

// maxCommandLine is the limit of Linux on x86-64, with the NUL.
const maxCommandLine = 2048

// Marks around the stub's name in its section .sdmagic.
const (
	stubBefore = "#### LoaderInfo: systemd-stub "
	stubAfter  = " ####"
)

// UKI is a unified kernel image: systemd-stub with a kernel and what belongs to it in
// sections.
type UKI struct {
	// Stub is the version of systemd-stub, as "252.39-1~deb12u2".
	Stub string

	// Linux, OSRelease, CommandLine and Initrd are the contents of .linux, .osrel,
	// .cmdline and .initrd. OSRelease may be nil.
	Linux, OSRelease, CommandLine, Initrd []byte

	program, kernel *PE
}

// ParseUKI reads a unified kernel image with systemd-stub of version 252. Sections
// whose handling is not proved are errors: boot splash, device trees, signed PCR
// policies. So is a command line with other than printable ASCII, which the stub
// would change, and a missing one, which the host would choose.
func ParseUKI(image []byte) (*UKI, error) {
	u := &UKI{}
	var err error
	if u.program, err = ParsePE(image); err != nil {
		return nil, err
	}
	if err := u.read(); err != nil {
		return nil, fmt.Errorf("reading UKI: %w", err)
	}
	if u.kernel, err = ParsePE(u.Linux); err != nil {
		return nil, fmt.Errorf("reading UKI: section .linux: %w", err)
	}
	return u, nil
}

func (u *UKI) read() error {
	magic, err := u.program.section(".sdmagic")
	if err != nil {
		return err
	}
	text, before := strings.CutPrefix(strings.TrimRight(string(magic), "\x00"), stubBefore)
	text, after := strings.CutSuffix(text, stubAfter)
	if !before || !after {
		return errors.New("no systemd-stub: its mark in section .sdmagic is missing")
	}
	if series, _, _ := strings.Cut(text, "."); series != stubSeries {
		return fmt.Errorf("systemd-stub %q: only version %s is known here", text, stubSeries)
	}
	u.Stub = text
	for _, name := range []string{".splash", ".dtb", ".dtbauto", ".ucode", ".hwids", ".profile", ".efifw", ".pcrsig", ".pcrpkey"} {
		if content, err := u.program.section(name); content != nil || err != nil {
			return fmt.Errorf("section %s: what the stub makes of it is not known here", name)
		}
	}
	for _, s := range []struct {
		name     string
		to       *[]byte
		optional bool
	}{{".linux", &u.Linux, false}, {".osrel", &u.OSRelease, true}, {".cmdline", &u.CommandLine, false}, {".initrd", &u.Initrd, false}} {
		if *s.to, err = u.program.section(s.name); err != nil {
			return err
		}
		if *s.to == nil && !s.optional {
			return fmt.Errorf("no section %s", s.name)
		}
	}
	return checkCommandLine(string(u.CommandLine))
}

// checkCommandLine wants what reaches the kernel unchanged.
func checkCommandLine(line string) error {
	if len(line) >= maxCommandLine {
		return fmt.Errorf("command line of %d bytes, at most %d allowed", len(line), maxCommandLine-1)
	}
	for i := range len(line) {
		if line[i] < ' ' || line[i] > '~' {
			return fmt.Errorf("command line has byte %#02x at %d, want printable ASCII without a line end", line[i], i)
		}
	}
	return nil
}
