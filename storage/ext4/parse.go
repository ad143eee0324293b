// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"fmt"
	"strconv"
	"strings"
)

const maxOptionsText = 1024

// ParseOptions reads mkfs.ext4 options as kata passes them in mkfsOpts, separated by white space, into the fields
// that they decide; the others are mkfs.ext4's usual: a journal, 5 percent reserved, 16384 bytes per inode, inodes of
// 256 bytes, a root directory 0755 of root. UUID and Now stay empty for the caller.
//
// The list is closed, and each may be given once:
//
//	-O ^has_journal
//	-m N                     percent, 0 to 50, whole
//	-i N                     bytes per inode, 4096 to 67108864
//	-I 128 | 256             bytes of an inode
//	-E lazy_journal_init     also =0 and =1; the journal is written in any case
//	-E lazy_itable_init=0    tables are always written, so no other value is taken
//
// -E takes both, separated by a comma. Anything else is an error that names it.
func ParseOptions(text string) (Options, error) {
	o := Options{Journal: true, ReservedPercent: 5, BytesPerInode: 16384, InodeSize: 256, RootMode: 0o755}
	if len(text) > maxOptionsText {
		return Options{}, fmt.Errorf("parsing mkfs options: %d bytes, want at most %d", len(text), maxOptionsText)
	}
	words := strings.Fields(text)
	seen := map[string]bool{}
	for i := 0; i < len(words); i += 2 {
		name := words[i]
		switch name {
		case "-O", "-m", "-i", "-I", "-E":
		default:
			return Options{}, fmt.Errorf("parsing mkfs options: option %q is not taken", name)
		}
		if i+1 == len(words) {
			return Options{}, fmt.Errorf("parsing mkfs options: option %s has no value", name)
		}
		if name != "-E" && seen[name] {
			return Options{}, fmt.Errorf("parsing mkfs options: option %s is given twice", name)
		}
		seen[name] = true
		if err := o.apply(name, words[i+1], seen); err != nil {
			return Options{}, fmt.Errorf("parsing mkfs options: %w", err)
		}
	}
	return o, nil
}

// apply takes one option. seen holds the names of options and of extended options so far.
func (o *Options) apply(name, value string, seen map[string]bool) error {
	var err error
	switch name {
	case "-O":
		if value != "^has_journal" {
			return fmt.Errorf("feature %q of -O is not taken, only ^has_journal", value)
		}
		o.Journal = false
	case "-m":
		o.ReservedPercent, err = number(name, value, 0, maxReserved)
	case "-i":
		o.BytesPerInode, err = number(name, value, minBytesPerInode, maxBytesPerInode)
	case "-I":
		if value != "128" && value != "256" {
			return fmt.Errorf("value %q of -I is not taken, only 128 and 256", value)
		}
		o.InodeSize, err = strconv.Atoi(value)
	default:
		return extended(value, seen)
	}
	return err
}

// extended checks the value of -E. Nothing follows from it: Format always writes all.
func extended(value string, seen map[string]bool) error {
	for word := range strings.SplitSeq(value, ",") {
		name, _, _ := strings.Cut(word, "=")
		switch word {
		case "lazy_journal_init", "lazy_journal_init=0", "lazy_journal_init=1", "lazy_itable_init=0":
		default:
			return fmt.Errorf("extended option %q of -E is not taken", word)
		}
		if seen[name] {
			return fmt.Errorf("extended option %s of -E is given twice", name)
		}
		seen[name] = true
	}
	return nil
}

// number reads a decimal number without sign or leading zeros.
func number(name, value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || strconv.Itoa(n) != value || n < low || n > high {
		return 0, fmt.Errorf("value %q of %s is not taken, only whole numbers from %d to %d", value, name, low, high)
	}
	return n, nil
}
