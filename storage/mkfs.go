// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Ext4 is what a request may say about a new file system; the zero value leaves everything to its maker.
type Ext4 struct {
	NoJournal     bool
	Reserved      *int // percent of the blocks kept for root, 0 to 50
	BytesPerInode int  // one inode for so many bytes of the device; 0: not said
	InodeSize     int  // bytes; 0: not said
}

// parseMkfs reads the arguments of mkfs.ext4 that kata's agent sends, with any numbers. Whether tables are initialised lazily has no effect: every block that may be read
// before it is written is written at once, or there would be no tag for it.
func parseMkfs(text string) (Ext4, error) {
	var e Ext4
	words := strings.Fields(text)
	seen := map[string]bool{}
	for i := 0; i < len(words); i += 2 {
		flag := words[i]
		if i+1 == len(words) {
			return Ext4{}, fmt.Errorf("argument %q, want a value behind it", flag)
		}
		if seen[flag] {
			return Ext4{}, fmt.Errorf("argument %s is there twice", flag)
		}
		seen[flag] = true
		if err := e.argument(flag, words[i+1]); err != nil {
			return Ext4{}, fmt.Errorf("argument %q: %w", flag+" "+words[i+1], err)
		}
	}
	return e, nil
}

func (e *Ext4) argument(flag, value string) (err error) {
	switch flag {
	case "-O":
		if value != "^has_journal" {
			return errors.New("want ^has_journal")
		}
		e.NoJournal = true
	case "-m":
		var percent int
		percent, err = between(value, 0, 50)
		e.Reserved = &percent
	case "-i":
		e.BytesPerInode, err = between(value, 1024, 64<<20)
	case "-I":
		e.InodeSize, err = between(value, 128, 4096)
		if err == nil && e.InodeSize&(e.InodeSize-1) != 0 {
			err = errors.New("want a power of two")
		}
	case "-E":
		for option := range strings.SplitSeq(value, ",") {
			switch option {
			case "lazy_journal_init", "lazy_journal_init=0", "lazy_journal_init=1", "lazy_itable_init", "lazy_itable_init=0", "lazy_itable_init=1":
			default:
				return errors.New("want lazy_journal_init or lazy_itable_init")
			}
		}
	default:
		return errors.New("it is not known")
	}
	return err
}

// between reads a plain decimal number.
func between(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text || n < least || n > most {
		return 0, fmt.Errorf("want a number from %d to %d", least, most)
	}
	return n, nil
}
