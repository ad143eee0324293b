// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// masterKeySize is an AES-256 key.
const masterKeySize = 32

// LoadMasterKey reads the master key from the file name: 64 hex digits. Without such
// a file it makes a key and writes it with mode 0600, unless stateDir holds state
// already, which the new key could not open. created says which happened. The caller
// clears the key.
func LoadMasterKey(name, stateDir string) (key []byte, created bool, err error) {
	key, err = readMasterKey(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if _, err := os.Stat(filepath.Join(stateDir, dbName)); err == nil {
		return nil, false, fmt.Errorf("seal key file %s is missing, and without it the state in %s cannot be opened", name, stateDir)
	}
	key = make([]byte, masterKeySize)
	rand.Read(key)
	if err := writeMasterKey(name, key); err != nil {
		clear(key)
		return nil, false, err
	}
	return key, true, nil
}

func readMasterKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening seal key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening seal key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("seal key file %s has mode %#o, want it closed to group and others", name, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*masterKeySize))
	if err != nil {
		return nil, fmt.Errorf("reading seal key %s: %w", name, err)
	}
	defer clear(text)
	digits := bytes.TrimSpace(text)
	key := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(key, digits); err != nil || len(key) != masterKeySize {
		clear(key)
		return nil, fmt.Errorf("seal key file %s: want %d hex digits", name, 2*masterKeySize)
	}
	return key, nil
}

// writeMasterKey never replaces a file: whoever lost the race must read the winner's.
func writeMasterKey(name string, key []byte) error {
	text := hex.AppendEncode(nil, key)
	defer clear(text)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("creating seal key: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing seal key %s: %w", name, errors.Join(err, os.Remove(name)))
	}
	return nil
}
