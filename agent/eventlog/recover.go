// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The write-ahead file has guest-components' form: the log's length before the entry
// (8 bytes, big-endian), the register's value behind it, the text.

// extend makes one entry in an order that complete can take up anywhere.
func (l *Log) extend(file *os.File, offset int64, text string, raw []byte) error {
	hash := l.register.Hash()
	value, err := l.register.Value()
	if err != nil {
		return fmt.Errorf("reading the register: %w", err)
	}
	digest := digestOf(hash, text)
	expected := sum(hash, value, digest)
	intent := binary.BigEndian.AppendUint64(nil, uint64(offset))
	intent = append(append(intent, expected...), text...)
	path := filepath.Join(l.dir, walName)
	// Under its name the file is whole.
	if err := os.WriteFile(path+".new", intent, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	if err := l.register.Extend(digest); err != nil {
		// Whether it was extended is not known: complete finds out, next time.
		return fmt.Errorf("extending the register: %w", err)
	}
	return l.finish(file, offset, expected, raw)
}

// finish writes the entry once the register has it.
func (l *Log) finish(file *os.File, offset int64, expected, raw []byte) error {
	value, err := l.register.Value()
	if err != nil {
		return fmt.Errorf("reading the register: %w", err)
	}
	if !bytes.Equal(value, expected) {
		return fmt.Errorf("the register is %x, want %x: something else extends it", value, expected)
	}
	if err := appendAt(file, offset, raw); err != nil {
		return err
	}
	return os.Remove(filepath.Join(l.dir, walName))
}

// complete takes up an entry that another process began.
func (l *Log) complete(file *os.File) error {
	path := filepath.Join(l.dir, walName)
	found, err := exists(path)
	if !found || err != nil {
		return err
	}
	if l.register == nil {
		return errors.New("an interrupted entry, and no register to compare it with")
	}
	intent, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	hash := l.register.Hash()
	if len(intent) < 8+hash.Size() || len(intent) > 8+hash.Size()+MaxText {
		return fmt.Errorf("interrupted entry of %d bytes, want %d to %d", len(intent), 8+hash.Size(), 8+hash.Size()+MaxText)
	}
	offset := binary.BigEndian.Uint64(intent)
	expected, text := intent[8:8+hash.Size()], string(intent[8+hash.Size():])
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if offset > uint64(info.Size()) || offset > maxLog {
		return fmt.Errorf("interrupted entry at byte %d of a log of %d", offset, info.Size())
	}
	value, err := l.register.Value()
	if err != nil {
		return fmt.Errorf("reading the register: %w", err)
	}
	digest := digestOf(hash, text)
	switch {
	case bytes.Equal(value, expected):
	case bytes.Equal(sum(hash, value, digest), expected):
		if err := l.register.Extend(digest); err != nil {
			return fmt.Errorf("extending the register by an interrupted entry: %w", err)
		}
	default:
		return errors.New("the register is neither before nor behind the interrupted entry: something else extends it")
	}
	number, hash := l.form()
	return l.finish(file, int64(offset), expected, encode(number, hash, text, true))
}
