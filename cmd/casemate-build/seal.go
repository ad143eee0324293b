// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/cosign"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/vault"
)

const (
	vaultScheme   = "vault://"
	vaultProvider = "vault"

	maxCertBytes = 1 << 20
	maxToken     = 8 << 10
)

// sealFlags are what seal is told besides its argument.
type sealFlags struct {
	keyFile, keyID, jwkOut string
	field                  string
	version                int64
	transitKey             string
	vault                  vault.Config
	ca, tokenFile          string
	aws                    awsFlags
}

func newSeal(s streams) *cobra.Command {
	var f sealFlags
	c := &cobra.Command{
		Use:   "seal WHAT --key FILE --key-id kbs:///REPOSITORY/TYPE/TAG [--jwk-out FILE]",
		Short: "Write a sealed secret, which only a guest turns into the secret",
		Long: `Write the text that stands for a secret and that only a guest turns into it. WHAT is

  kbs:///REPOSITORY/TYPE/TAG       a secret of the relying party
  vault://PATH --field NAME        a field of a KV version 2 entry of the guest's
                                   HashiCorp Vault or OpenBao
  FILE --transit-key NAME          the file's content, encrypted under a new data key
                                   that --vault wraps by a key of its transit engine
  aws://NAME --aws-region REGION   a secret of Amazon's Secrets Manager
  FILE --kms-key ID --aws-region REGION
                                   the file's content, under a data key that Amazon's
                                   KMS wraps

The text is signed (ES256) by the key of keygen, so that whoever delivers it cannot put
another one in its place. Guests look up the public half under --key-id: --jwk-out writes
it, for "keybroker resource set"; where --key-id is a plain name, for [sealed_keys] in
casemate.toml. Guests find the vault and Amazon by [vault] and [aws] there.`,
		Args: exactly("WHAT"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := seal(c.Context(), f, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "%s\n", text)
			return err
		},
	}
	c.Flags().StringVar(&f.keyFile, "key", "", "`FILE` with the private key that keygen made")
	c.Flags().StringVar(&f.keyID, "key-id", "", "`URI` under which the relying party keeps the public half, or its name in sealed_keys")
	c.Flags().StringVar(&f.jwkOut, "jwk-out", "", "new `FILE` to write the public half to as a JWK")
	c.Flags().StringVar(&f.field, "field", "", "`NAME` of the field of a vault:// entry")
	c.Flags().Int64Var(&f.version, "version", 0, "`NUMBER` of the version of a vault:// entry; 0 is the newest when it is opened")
	c.Flags().StringVar(&f.transitKey, "transit-key", "", "`NAME` of the transit key that wraps the data key")
	c.Flags().StringVar(&f.vault.URL, "vault", "", "`URL` of the vault that wraps, https://HOST[:PORT]")
	c.Flags().StringVar(&f.vault.Namespace, "vault-namespace", "", "`NAME` of its namespace")
	c.Flags().StringVar(&f.vault.Transit, "vault-transit", "", "`MOUNT` of its transit engine, by default transit")
	c.Flags().StringVar(&f.ca, "vault-ca", "", "PEM `FILE` that its certificate is pinned to")
	c.Flags().StringVar(&f.tokenFile, "vault-token-file", "", "`FILE` with its token")
	f.aws.add(c.Flags())
	return c
}

// seal writes the text, and the JWK where it is wanted.
func seal(ctx context.Context, f sealFlags, what string) ([]byte, error) {
	if f.keyFile == "" || f.keyID == "" {
		return nil, usagef("--key and --key-id are needed")
	}
	if err := f.check(what); err != nil {
		return nil, err
	}
	pem, err := readFile(f.keyFile, cosign.MaxKeyBytes)
	defer clear(pem)
	if err != nil {
		return nil, fmt.Errorf("reading signing key: %w", err)
	}
	key, err := cosign.ParsePrivateKey(pem, nil)
	if err != nil {
		return nil, err
	}
	text, err := f.text(ctx, key, what)
	if err != nil || f.jwkOut == "" {
		return text, err
	}
	jwk, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := writeNewFile(f.jwkOut, jwk, publicFileMode); err != nil {
		return nil, fmt.Errorf("writing verification key: %w", err)
	}
	return text, nil
}

// check refuses flags that belong to another form of what.
func (f sealFlags) check(what string) error {
	_, stored := strings.CutPrefix(what, vaultScheme)
	_, ofAWS := awsSecret(what)
	switch {
	case stored != (f.field != "") || f.version != 0 && !stored:
		return usagef("--field and --version belong to vault://PATH, which needs --field")
	case f.version < 0:
		return usagef("--version %d: want 1 or more", f.version)
	case (stored || ofAWS) && f.transitKey != "":
		return usagef("--transit-key seals a file's content, not %s", what)
	case (f.transitKey == "") != (f.vault.URL == ""):
		return usagef("--transit-key and --vault belong together")
	case f.aws.kmsKey != "" && (stored || f.transitKey != ""):
		return usagef("--kms-key seals a file's content, and alone")
	}
	return f.aws.check(ofAWS)
}

// text seals what.
func (f sealFlags) text(ctx context.Context, key *ecdsa.PrivateKey, what string) ([]byte, error) {
	if f.transitKey != "" {
		return f.envelope(ctx, key, what)
	}
	if f.aws.kmsKey != "" {
		return f.aws.envelope(ctx, key, f.keyID, what)
	}
	if path, ok := strings.CutPrefix(what, vaultScheme); ok {
		return f.stored(key, path)
	}
	if name, ok := awsSecret(what); ok {
		return f.aws.stored(key, f.keyID, name)
	}
	return keyprovider.SealVault(key, f.keyID, what)
}

// stored seals the name of a KV entry.
func (f sealFlags) stored(key *ecdsa.PrivateKey, path string) ([]byte, error) {
	annotations, err := json.Marshal(struct {
		Field   string `json:"field"`
		Version int64  `json:"version,omitzero"`
	}{f.field, f.version})
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if err := vault.CheckName(path); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return keyprovider.SealStored(key, f.keyID, vaultProvider, path, []byte("{}"), annotations)
}

// envelope seals a file's content.
func (f sealFlags) envelope(ctx context.Context, key *ecdsa.PrivateKey, file string) ([]byte, error) {
	secret, err := readFile(file, keyprovider.MaxSealedBytes)
	defer clear(secret)
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	ca, err := readFile(f.ca, maxCertBytes)
	if err != nil {
		return nil, fmt.Errorf("reading --vault-ca: %w", err)
	}
	f.vault.Roots = x509.NewCertPool()
	if !f.vault.Roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("reading --vault-ca: want a PEM certificate")
	}
	token, err := readFile(f.tokenFile, maxToken)
	defer clear(token)
	if err != nil {
		return nil, fmt.Errorf("reading --vault-token-file: %w", err)
	}
	f.vault.Token = func(context.Context) ([]byte, error) { return bytes.Clone(token), nil }
	client, err := vault.New(f.vault)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	dataKey, wrapped, err := client.DataKey(ctx, f.transitKey)
	defer clear(dataKey)
	if err != nil {
		return nil, fmt.Errorf("making a data key under %q: %w", f.transitKey, err)
	}
	kms := keyprovider.KMSKey{Provider: vaultProvider, ID: f.transitKey, Settings: []byte("{}"), Annotations: []byte("{}")}
	return keyprovider.SealEnvelope(key, f.keyID, kms, dataKey, wrapped, secret)
}
