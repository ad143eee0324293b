// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/verity"
)

// runVerity is casemate verity check|open|close.
func runVerity(ctx context.Context, args []string) error {
	return among(ctx, args, []verb{
		{"check", "--pin PIN DATA HASH", "read all of a device, as a diagnostic", verityCheck},
		{"open", "--pin PIN NAME DATA HASH", "map a device, so that what is read from it is checked", verityOpen},
		{"close", "NAME", "take the mapping away", verityClose},
	})
}

// parsePinned reads a verb's --pin, its arguments and the flags that more adds.
func parsePinned(args []string, n int, more func(*flag.FlagSet)) (verity.Pin, []string, error) {
	var text string
	rest, err := parse(args, n, n, func(set *flag.FlagSet) {
		set.StringVar(&text, "pin", "", "the tree's whole tuple, as casemate-build verity format prints it")
		if more != nil {
			more(set)
		}
	})
	if err != nil {
		return verity.Pin{}, nil, err
	}
	if text == "" {
		return verity.Pin{}, nil, fmt.Errorf("%w: --pin is missing: a superblock proves nothing", errUsage)
	}
	pin, err := verity.ParsePin(text)
	return pin, rest, err
}

// verityCheck reads all of a device: a diagnostic, not what makes it safe to use.
func verityCheck(ctx context.Context, args []string) error {
	pin, rest, err := parsePinned(args, 2, nil)
	if err != nil {
		return err
	}
	data, err := os.Open(rest[0])
	if err != nil {
		return err
	}
	defer data.Close()
	hash, err := os.Open(rest[1])
	if err != nil {
		return err
	}
	defer hash.Close()
	if err := repeats(pin, hash); err != nil {
		return err
	}
	if err := verity.Check(ctx, data, hash, pin); err != nil {
		return err
	}
	_, err = fmt.Printf("%d blocks of %d bytes match\n", pin.DataBlocks, pin.DataBlockSize)
	return err
}

func verityClose(_ context.Context, args []string) error {
	rest, err := parse(args, 1, 1, nil)
	if err != nil {
		return err
	}
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	return errors.Join(control.Remove(rest[0]), control.Close())
}

// repeats lets a superblock where the pin has room for one only say what the pin
// says.
func repeats(pin verity.Pin, hash io.ReaderAt) error {
	if pin.HashOffset != verity.TreeOffset(pin.HashBlockSize) {
		return nil
	}
	b := make([]byte, verity.SuperblockSize)
	if _, err := hash.ReadAt(b, 0); err != nil {
		return fmt.Errorf("reading the verity superblock: %w", err)
	}
	superblock, err := verity.ParseSuperblock(b)
	if err != nil {
		return err
	}
	return pin.Repeats(superblock.Params)
}
