// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/keyprovider"
)

const (
	// maxKEKFileBytes lets a hex or PEM file be told apart from a raw key.
	maxKEKFileBytes = 4 << 10
	// withdrawTimeout is for taking a key back after a failure, which must be
	// tried even when the user has interrupted the command.
	withdrawTimeout = 10 * time.Second
	secretFileMode  = 0o600
)

// kekFlags say which key-encryption key to use and where it goes.
type kekFlags struct {
	keyID     string
	kekFile   string
	kekOut    string
	keybroker string
	tokenFile string
	caFile    string
	workload  string
}

func (f *kekFlags) bind(c *cobra.Command) {
	c.Flags().StringVar(&f.keyID, "key-id", "", "name of the key: `kbs:///REPOSITORY/TYPE/TAG`")
	c.Flags().StringVar(&f.kekFile, "kek-file", "", "`FILE` with the key, 32 raw bytes; without it a random key is made")
	c.Flags().StringVar(&f.kekOut, "kek-out", "", "new `FILE` to write a random key to")
	c.Flags().StringVar(&f.keybroker, "keybroker", "", "`URL` of the keybroker to register the key at")
	c.Flags().StringVar(&f.tokenFile, "owner-token-file", "", "`FILE` with the keybroker's owner token")
	c.Flags().StringVar(&f.caFile, "ca", "", "PEM `FILE` of certificates to trust for the keybroker, instead of the system's")
	c.Flags().StringVar(&f.workload, "workload", "", "`ID` of the workload that the key belongs to")
}

// check says what is wrong with the flags themselves.
func (f *kekFlags) check() error {
	if f.keyID == "" {
		return usagef("--key-id is missing: the guest asks for the key by that name")
	}
	if err := keyprovider.CheckKeyID(f.keyID); err != nil {
		return usagef("--key-id: %w", err)
	}
	if f.kekFile != "" && f.kekOut != "" {
		return usagef("--kek-out is for a random key, and --kek-file names one")
	}
	if f.keybroker == "" {
		if f.tokenFile != "" || f.caFile != "" || f.workload != "" {
			return usagef("--owner-token-file, --ca and --workload need --keybroker")
		}
		if f.kekFile == "" && f.kekOut == "" {
			return usagef("a random key would be lost: give --keybroker to register it, --kek-out to save it or --kek-file to use another")
		}
		return nil
	}
	if f.tokenFile == "" || f.workload == "" {
		return usagef("--keybroker needs --owner-token-file and --workload")
	}
	return nil
}

// heldKey is a KEK on its way to the places that keep it. Close it.
type heldKey struct {
	id        string
	kek       []byte
	generated bool
	out       string        // file for a generated key; may be empty
	owner     *owner.Client // nil without a keybroker
	workload  string
	published bool
	// registered says whether the keybroker knows the workload already.
	registered bool
}

// open reads or makes the key and asks the keybroker whether it can take it,
// so that what is bound to fail does so before any work.
func (f *kekFlags) open(ctx context.Context) (*heldKey, error) {
	k := &heldKey{id: f.keyID, out: f.kekOut, workload: f.workload, generated: f.kekFile == ""}
	var err error
	if k.generated {
		k.kek = make([]byte, keyprovider.KEKBytes)
		_, err = rand.Read(k.kek)
	} else {
		k.kek, err = readKEK(f.kekFile)
	}
	if err != nil {
		return nil, err
	}
	if f.keybroker != "" {
		if k.owner, err = f.connect(); err == nil {
			err = k.checkFree(ctx)
		}
		if err != nil {
			k.Close()
			return nil, err
		}
	}
	return k, nil
}

func (f *kekFlags) connect() (*owner.Client, error) {
	token, err := owner.ReadToken(f.tokenFile)
	if err != nil {
		return nil, err
	}
	defer clear(token)
	config := owner.Config{URL: f.keybroker, Token: token}
	if f.caFile != "" {
		if config.Roots, err = owner.ReadRoots(f.caFile); err != nil {
			return nil, err
		}
	}
	return owner.New(config)
}

func readKEK(name string) ([]byte, error) {
	kek, err := readFile(name, maxKEKFileBytes)
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	if len(kek) != keyprovider.KEKBytes {
		defer clear(kek)
		return nil, fmt.Errorf("reading key: %s has %d bytes, want %d raw bytes (no hex, no base64, no line end)", name, len(kek), keyprovider.KEKBytes)
	}
	return kek, nil
}

// path is the key's name at the keybroker.
func (k *heldKey) path() string { return strings.TrimPrefix(k.id, "kbs:///") }

// checkFree refuses to put a random key in the place of another one: images
// that were encrypted with that one could never be opened again.
func (k *heldKey) checkFree(ctx context.Context) error {
	secrets, err := k.owner.Secrets(ctx, k.workload)
	if errors.Is(err, owner.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	taken := slices.ContainsFunc(secrets, func(s owner.Secret) bool { return s.Path == k.path() })
	if taken && k.generated {
		return fmt.Errorf("the keybroker has a key %s of %s already, and a random one in its place would lock out the images encrypted with it: use another --key-id, or --kek-file with that key", k.id, k.workload)
	}
	return nil
}

// publish puts the key where guests will find it. Nothing that is encrypted
// with it may be given away before.
func (k *heldKey) publish(ctx context.Context) error {
	if k.out != "" {
		if err := writeNewFile(k.out, k.kek, secretFileMode); err != nil {
			return fmt.Errorf("saving key: %w", err)
		}
	}
	k.published = true
	if k.owner == nil {
		return nil
	}
	stored, err := k.owner.PutSecret(ctx, k.workload, k.path(), k.kek)
	if err != nil {
		return errors.Join(fmt.Errorf("registering key %s: %w", k.id, err), k.withdraw(ctx))
	}
	k.registered = stored.Registered
	return nil
}

// String says where the key is, for people.
func (k *heldKey) String() string {
	switch {
	case k.owner == nil:
		return k.id
	case k.registered:
		return fmt.Sprintf("%s, stored for workload %s", k.id, k.workload)
	default:
		return fmt.Sprintf("%s, stored for workload %s, which is not registered yet", k.id, k.workload)
	}
}

// withdraw takes a random key back after a failure, so that the command can be
// repeated. A key that the user brought stays.
func (k *heldKey) withdraw(ctx context.Context) error {
	if !k.generated || !k.published {
		return nil
	}
	k.published = false
	var err error
	if k.out != "" {
		err = os.Remove(k.out)
	}
	if k.owner == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	ownerErr := k.owner.DeleteSecret(ctx, k.workload, k.path())
	if errors.Is(ownerErr, owner.ErrNotFound) {
		ownerErr = nil
	}
	return errors.Join(err, ownerErr)
}

// Key makes heldKey the key source of a key provider that serves this one key.
func (k *heldKey) Key(_ context.Context, uri string) ([]byte, error) {
	if uri != k.id {
		return nil, fmt.Errorf("no key %s", uri)
	}
	return bytes.Clone(k.kek), nil
}

// Close clears the key.
func (k *heldKey) Close() { clear(k.kek) }
