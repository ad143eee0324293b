// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/aws"
	"github.com/casemate/casemate/keyprovider/vault"
)

// runUnseal writes, raw, what the sealed secret on standard input stands for. White
// space around the text is not part of it: editors and pipes add a last newline.
func runUnseal(ctx context.Context, args []string) error {
	o, _, err := parseGuest(args, 0, 0, nil)
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

// What sealed secrets call HashiCorp Vault and OpenBao, and Amazon's services.
const (
	vaultProvider = "vault"
	awsProvider   = "aws"
)

// unsealer opens sealed secrets: by the relying party's keys and those of measured
// configuration, and with the services that it names for secrets that are elsewhere.
func (m *machine) unsealer(keys keyprovider.KeySource) (*keyprovider.Unsealer, error) {
	u := &keyprovider.Unsealer{Keys: keys, Measured: map[string]*ecdsa.PublicKey{},
		KMS: map[string]keyprovider.KMS{}, Stores: map[string]keyprovider.SecretStore{}}
	for name, jwk := range m.conf.SealedKeys {
		key, err := keyprovider.ParseVerificationKey([]byte(jwk))
		if err != nil {
			return nil, fmt.Errorf("reading sealed_keys: %q: %w", name, err)
		}
		u.Measured[name] = key
	}
	if v := m.conf.Vault; v.URL != "" {
		roots, err := pinnedRoots("vault.cert", v.Cert)
		if err != nil {
			return nil, err
		}
		client, err := vault.New(vault.Config{
			URL: v.URL, Roots: roots, Namespace: v.Namespace, Transit: v.Transit, KV: v.KV,
			Token: func(ctx context.Context) ([]byte, error) { return keys.Key(ctx, v.TokenURI) },
		})
		if err != nil {
			return nil, err
		}
		u.KMS[vaultProvider], u.Stores[vaultProvider] = client, client
	}
	if a := m.conf.AWS; a.Region != "" {
		roots, err := pinnedRoots("aws.cert", a.Cert)
		if err != nil {
			return nil, err
		}
		client, err := aws.New(aws.Config{
			Region: a.Region, KMS: a.KMSURL, Secrets: a.SecretsURL, Roots: roots,
			Credential: func(ctx context.Context) ([]byte, error) { return keys.Key(ctx, a.CredentialURI) },
		})
		if err != nil {
			return nil, err
		}
		u.KMS[awsProvider], u.Stores[awsProvider] = client, client
	}
	return u, nil
}

// pinnedRoots reads the PEM text of the setting key.
func pinnedRoots(key, text string) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(text)) {
		return nil, fmt.Errorf("reading %s: want a PEM certificate", key)
	}
	return roots, nil
}
