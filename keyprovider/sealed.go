// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"crypto/aes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
)

// MaxSealedBytes bounds the text of a sealed secret. It travels in environment
// variables and small files; what it opens to is bounded by its source.
const MaxSealedBytes = 128 << 10

// sealedVersion is the only payload version there is.
const sealedVersion = "0.1.0"

const (
	sealedVault    = "vault"
	sealedEnvelope = "envelope"
)

var (
	// ErrSealed is wrapped when the text is not a sealed secret that is served.
	ErrSealed = errors.New("reading sealed secret")
	// ErrSealedSignature is wrapped when nobody entitled signed it.
	ErrSealedSignature = errors.New("verifying sealed secret")
	// ErrUnseal is wrapped when a verified secret did not open.
	ErrUnseal = errors.New("unsealing secret")
)

// KMS decrypts the data key of an envelope in a key management service that is
// not the KBS.
type KMS interface {
	// Decrypt returns the data key that encrypted holds, under keyID. settings and
	// annotations are JSON objects as signed. The caller clears the result.
	Decrypt(ctx context.Context, keyID string, encrypted, settings, annotations []byte) ([]byte, error)
}

// SecretStore keeps secrets that a sealed secret of the vault form names, where it is not
// the KBS.
type SecretStore interface {
	// Secret returns the secret that name stands for. settings and annotations are JSON
	// objects as signed. The caller clears the result.
	Secret(ctx context.Context, name string, settings, annotations []byte) ([]byte, error)
}

// Unsealer opens sealed secrets (guest-components' docs/SEALED_SECRET.md). It is
// safe for concurrent use if what it holds is.
type Unsealer struct {
	// Keys hands out verification keys and the secrets of provider "kbs". It must
	// not be nil.
	Keys KeySource
	// Measured are verification keys of measured configuration, by the name in a secret's
	// header. Other names are URIs of keys at the KBS.
	Measured map[string]*ecdsa.PublicKey
	// KMS serves envelopes, by provider name in lower case. The provider "kbs" never
	// serves envelopes.
	KMS map[string]KMS
	// Stores serve the vault form, by provider name in lower case. The provider "kbs" is
	// always Keys.
	Stores map[string]SecretStore
}

// Unseal verifies the signature of a sealed secret (text, "sealed." and a compact
// JWS, at most MaxSealedBytes) and returns what it stands for; the caller clears
// it. There is no way around the signature: an unsigned secret would let whoever
// delivers it choose which of the workload's secrets appears in its place.
//
// The errors wrap ErrSealed, ErrSealedSignature, ErrKey or ErrUnseal.
func (u *Unsealer) Unseal(ctx context.Context, text []byte) ([]byte, error) {
	s, err := parseSealed(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if err := u.verify(ctx, s); err != nil {
		return nil, err
	}
	p, err := parseSealedPayload(s.payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if p.Type == sealedVault {
		return u.vault(ctx, p)
	}
	return u.envelope(ctx, p)
}

func (u *Unsealer) vault(ctx context.Context, p *sealedPayload) ([]byte, error) {
	if !strings.EqualFold(p.Provider, packetProvider) {
		return u.stored(ctx, p)
	}
	uri, err := parseKeyID(p.Name)
	if err != nil {
		return nil, fmt.Errorf("%w: name: %w", ErrSealed, err)
	}
	secret, err := u.Keys.Key(ctx, uri)
	if err != nil {
		clear(secret)
		return nil, fmt.Errorf("%w %s: %w", ErrKey, uri, err)
	}
	return secret, nil
}

func (u *Unsealer) stored(ctx context.Context, p *sealedPayload) ([]byte, error) {
	store, ok := u.Stores[strings.ToLower(p.Provider)]
	if !ok {
		return nil, fmt.Errorf("%w: no store is configured for vault provider %.64q", ErrSealed, p.Provider)
	}
	secret, err := store.Secret(ctx, p.Name, p.ProviderSettings, p.Annotations)
	if err != nil {
		clear(secret)
		return nil, fmt.Errorf("%w %.128q at %.64q: %w", ErrKey, p.Name, p.Provider, err)
	}
	return secret, nil
}

func (u *Unsealer) envelope(ctx context.Context, p *sealedPayload) ([]byte, error) {
	kms, ok := u.KMS[strings.ToLower(p.Provider)]
	if !ok || strings.EqualFold(p.Provider, packetProvider) {
		return nil, fmt.Errorf("%w: no KMS is configured for envelope provider %.64q", ErrSealed, p.Provider)
	}
	if p.WrapType != A256GCM {
		return nil, fmt.Errorf("%w: envelope wrap type %.64q, want %s", ErrSealed, p.WrapType, A256GCM)
	}
	if len(p.IV) != gcmIVBytes {
		return nil, fmt.Errorf("%w: envelope iv of %d bytes, want %d", ErrSealed, len(p.IV), gcmIVBytes)
	}
	dek, err := kms.Decrypt(ctx, p.KeyID, p.EncryptedKey, p.ProviderSettings, p.Annotations)
	defer clear(dek)
	if err != nil {
		return nil, fmt.Errorf("%w %.128q at %.64q: %w", ErrKey, p.KeyID, p.Provider, err)
	}
	if len(dek) != KEKBytes {
		return nil, fmt.Errorf("%w: data key of %d bytes, want %d", ErrUnseal, len(dek), KEKBytes)
	}
	block, err := aes.NewCipher(dek)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnseal, err)
	}
	secret, err := openGCM(block, &Packet{IV: p.IV, WrappedData: p.EncryptedData})
	if err != nil {
		return nil, fmt.Errorf("%w: wrong data key or altered envelope", ErrUnseal)
	}
	return secret, nil
}

// parseSealedPayload reads the signed document. Members of the other type are
// errors: a document means one thing.
func parseSealedPayload(raw []byte) (*sealedPayload, error) {
	var p sealedPayload
	if err := json.Unmarshal(raw, &p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if p.Version != sealedVersion {
		return nil, fmt.Errorf("payload version %.32q, want %s", p.Version, sealedVersion)
	}
	if p.ProviderSettings.Kind() != '{' || p.Annotations.Kind() != '{' {
		return nil, errors.New("payload: provider_settings and annotations must be objects")
	}
	enveloped := p.KeyID != "" || p.EncryptedKey != nil || p.EncryptedData != nil || p.WrapType != "" || p.IV != nil
	switch {
	case p.Type == sealedVault && p.Name != "" && !enveloped:
	case p.Type == sealedEnvelope && p.Name == "" && p.KeyID != "" && len(p.EncryptedKey) > 0 && len(p.EncryptedData) > 0:
	default:
		return nil, fmt.Errorf("payload of type %.32q without its own members or with those of another type", p.Type)
	}
	return &p, nil
}
