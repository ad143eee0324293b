// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/internal/version"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
)

const (
	ownerTokenFile = "owner-token"
	ownerTokenSize = 32

	// tokenKey is the name of the token key in the store.
	tokenKey = "token-es256"
)

// openStore opens the state with its seal key, making both the first time.
func openStore(f serveFlags, log *slog.Logger) (*store.Store, error) {
	name := f.sealKeyName()
	key, created, err := store.LoadMasterKey(name, f.state)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if created {
		log.Info("made a seal key; without it the state cannot be opened, so keep a copy apart from the state", "file", name)
	}
	return store.Open(f.state, key)
}

// openIssuer takes the token key from the store, so that tokens outlive a restart.
func openIssuer(st *store.Store) (*token.Issuer, error) {
	key, err := st.Key(tokenKey, token.GenerateKey)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return token.NewIssuer(key, "keybroker "+version.Number)
}

// openOwnerToken reads the owner token, making it the first time. The caller clears it.
func openOwnerToken(state string, log *slog.Logger) ([]byte, error) {
	name := filepath.Join(state, ownerTokenFile)
	value, err := owner.ReadToken(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	random := make([]byte, ownerTokenSize)
	defer clear(random)
	rand.Read(random)
	value = hex.AppendEncode(nil, random)
	if err := writeNew(name, append(value, '\n')); err != nil {
		return nil, fmt.Errorf("writing owner token: %w", err)
	}
	log.Info("made an owner token; whoever has it decides what guests are given", "file", name)
	return value, nil
}

// writeNew writes a file that is not there yet, with mode 0600.
func writeNew(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
