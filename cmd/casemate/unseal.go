// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/vault"
)

// runUnseal writes, raw, what the sealed secret on standard input stands for. White
// space around the text is not part of it: editors and pipes add a last newline.
func runUnseal(ctx context.Context, args []string) error {
	o, _, err := parse(args, 0, 0, nil)
	if err != nil {
		return err
	}
	text, err := readAll(os.Stdin, keyprovider.MaxSealedBytes)
	if err != nil {
		return fmt.Errorf("reading the sealed secret: %w", err)
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	client, err := m.relyingParty()
	if err != nil {
		return err
	}
	unsealer, err := m.unsealer(client)
	if err != nil {
		return err
	}
	secret, err := unsealer.Unseal(ctx, bytes.TrimSpace(text))
	if err != nil {
		return err
	}
	defer clear(secret)
	_, err = os.Stdout.Write(secret)
	return err
}

// vaultProvider is what sealed secrets call HashiCorp Vault and OpenBao.
const vaultProvider = "vault"

// unsealer opens sealed secrets: by the relying party's keys, and with the server that
// measured configuration names for those that are elsewhere.
func (m *machine) unsealer(keys keyprovider.KeySource) (*keyprovider.Unsealer, error) {
	u := &keyprovider.Unsealer{Keys: keys}
	v := m.conf.Vault
	if v.URL == "" {
		return u, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(v.Cert)) {
		return nil, errors.New("reading vault.cert: want a PEM certificate")
	}
	client, err := vault.New(vault.Config{
		URL: v.URL, Roots: roots, Namespace: v.Namespace, Transit: v.Transit, KV: v.KV,
		Token: func(ctx context.Context) ([]byte, error) { return keys.Key(ctx, v.TokenURI) },
	})
	if err != nil {
		return nil, err
	}
	u.KMS = map[string]keyprovider.KMS{vaultProvider: client}
	u.Stores = map[string]keyprovider.SecretStore{vaultProvider: client}
	return u, nil
}
