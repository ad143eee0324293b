// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/verity"
)

// maxSignature caps a signature's file, in bytes, as the kernel's keys do.
const maxSignature = 32767

// veritySetup is one casemate verity open.
type veritySetup struct {
	pin              verity.Pin
	name, data, hash string // name in /dev/mapper, absolute paths
	fec              string // absolute path of the device with the parity, or empty
	fecOffset        uint64
	fecRoots         int
	signature        string // file, or empty
}

func parseVerityOpen(args []string) (veritySetup, error) {
	var s veritySetup
	pin, rest, err := parsePinned(args, 3, func(set *flag.FlagSet) {
		set.StringVar(&s.fec, "fec-device", "", "where veritysetup wrote parity to repair blocks with")
		set.Uint64Var(&s.fecOffset, "fec-offset", 0, "where the parity begins, in bytes")
		set.IntVar(&s.fecRoots, "fec-roots", verity.MinParity, "bytes of parity in 255")
		set.StringVar(&s.signature, "root-hash-signature", "", "PKCS #7 in DER over the root hash's text, by a key that the kernel trusts")
	})
	if err != nil {
		return s, err
	}
	if s.fec == "" && (s.fecOffset != 0 || s.fecRoots != verity.MinParity) {
		return s, fmt.Errorf("%w: --fec-offset and --fec-roots want --fec-device", errUsage)
	}
	s.pin, s.name, s.data, s.hash = pin, rest[0], rest[1], rest[2]
	for _, device := range []*string{&s.data, &s.hash, &s.fec} {
		if *device == "" {
			continue
		}
		if *device, err = filepath.Abs(*device); err != nil {
			return s, err
		}
	}
	return s, nil
}

// verityOpen makes /dev/mapper/NAME, each block of which the kernel checks as it
// is read.
func verityOpen(_ context.Context, args []string) error {
	s, err := parseVerityOpen(args)
	if err != nil {
		return err
	}
	target, err := s.target()
	if err != nil {
		return err
	}
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	device, err := control.Create(devmapper.Mapping{Name: s.name, ReadOnly: true, Targets: []devmapper.Target{target}})
	if err = errors.Join(err, control.Close()); err != nil {
		return err
	}
	_, err = fmt.Println(device.Path)
	return err
}

// target is the table, once the devices are seen to be what the pin and the flags
// say.
func (s veritySetup) target() (target devmapper.Verity, err error) {
	hash, err := os.Open(s.hash)
	if err != nil {
		return target, err
	}
	defer hash.Close()
	if err := repeats(s.pin, hash); err != nil {
		return target, err
	}
	target = verityTarget(s.pin, s.data, s.hash)
	if s.fec != "" {
		if target.FEC, err = s.parity(hash); err != nil {
			return target, err
		}
	}
	if s.signature != "" {
		if target.Signature, err = readSignature(s.signature); err != nil {
			return target, err
		}
	}
	return target, nil
}

// parity finds what the parity covers: all of the hash device, or what lies before
// the parity where that is on the same device.
func (s veritySetup) parity(hash *os.File) (*devmapper.VerityFEC, error) {
	end, err := hash.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("finding the size of %s: %w", s.hash, err)
	}
	same, err := sameDevice(s.fec, hash)
	if err != nil {
		return nil, err
	}
	covered := uint64(end) //nolint:gosec // a size
	if same {
		covered = min(covered, s.fecOffset)
	}
	fec, err := s.pin.FEC(s.fecRoots, s.fecOffset, covered)
	if err != nil {
		return nil, err
	}
	block := uint64(s.pin.DataBlockSize) //nolint:gosec // checked
	return &devmapper.VerityFEC{Device: s.fec, StartBlock: fec.Offset / block, Blocks: fec.Blocks, Roots: fec.Roots}, nil
}

// sameDevice compares the files that two names lead to, and the devices that two
// nodes stand for.
func sameDevice(name string, f *os.File) (bool, error) {
	a, err := os.Stat(name)
	if err != nil {
		return false, err
	}
	b, err := f.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b) || blockDevice(a) != 0 && blockDevice(a) == blockDevice(b), nil
}

func readSignature(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the signature %s: %w", name, err)
	case len(b) == 0 || len(b) > maxSignature:
		return nil, fmt.Errorf("reading the signature %s: want 1 to %d bytes", name, maxSignature)
	}
	return b, nil
}

// blockDevice is the number of a block device, 0 for any other file.
func blockDevice(info os.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() != os.ModeDevice {
		return 0
	}
	return st.Rdev
}
