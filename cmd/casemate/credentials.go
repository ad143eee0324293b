// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// writeCredentials fetches what configuration wants in files and writes them below dir,
// which stands for config.CredentialDir: 0600, each in one step. Where one is not to be
// had none is left, and the data hub does not start. What has a lease is renewed by the
// result.
func (m *machine) writeCredentials(ctx context.Context, secrets services.Resources, dir string) (_ *leases, err error) {
	if len(m.conf.Credentials) == 0 {
		return &leases{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("writing credentials: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("writing credentials: %w", err)
	}
	defer root.Close()
	var written []string
	sums := map[string][sha256.Size]byte{}
	defer func() {
		if err != nil {
			for _, name := range written {
				err = errors.Join(err, root.Remove(name))
			}
		}
	}()
	for _, c := range m.conf.Credentials {
		name := strings.TrimPrefix(c.Path, config.CredentialDir+"/")
		secret, err := secrets.Key(ctx, c.ResourceURI)
		if err == nil {
			err = writeCredential(root, name, secret)
		}
		sums[c.Path] = sha256.Sum256(secret)
		clear(secret)
		if err != nil {
			return nil, fmt.Errorf("writing credential %s: %w", c.Path, err)
		}
		written = append(written, name)
	}
	m.steps.say("%d credentials written below %s", len(written), config.CredentialDir)
	return m.newLeases(secrets, dir, sums), nil
}

// writeCredential replaces one file; no link in its path is followed out of root.
func writeCredential(root *os.Root, name string, secret []byte) error {
	dir, base := path.Split(name)
	if dir != "" {
		if err := root.MkdirAll(path.Clean(dir), 0o700); err != nil {
			return err
		}
	}
	next := dir + "." + base
	if err := root.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(secret)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = root.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(next))
	}
	return nil
}
