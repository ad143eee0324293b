// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/aes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	annotationKeys    = "org.opencontainers.image.enc.keys."
	annotationPubOpts = "org.opencontainers.image.enc.pubopts"
	providerScheme    = "provider."
	// layerCipher is the only cipher that ocicrypt defines.
	layerCipher = "AES_256_CTR_HMAC_SHA256"
	layerKeyLen = 32

	// maxRecipients bounds the wrapped keys of one layer that are tried: each
	// may cost a request to the relying party.
	maxRecipients = 16
	// maxPacket caps one wrapped key and, unwrapped, the private options:
	// real ones have a few hundred bytes.
	maxPacket  = 64 << 10
	maxPubOpts = 4 << 10
)

// KeyUnwrapper opens the wrapped private options of an encrypted layer.
type KeyUnwrapper interface {
	// Unwrap returns the plaintext of packet, one base64-decoded value of an
	// org.opencontainers.image.enc.keys.provider.* annotation. The caller clears
	// the result.
	Unwrap(ctx context.Context, packet []byte) ([]byte, error)
}

// layerKey opens one encrypted layer.
type layerKey struct {
	key    []byte // AES-256 and HMAC-SHA256 key; the holder clears it
	nonce  [aes.BlockSize]byte
	mac    [sha256.Size]byte // expected HMAC over the ciphertext, public
	digest v1.Hash           // of the blob inside, before encryption
}

func (k *layerKey) clear() { clear(k.key) }

// unwrapLayerKey opens the first wrapped key that u can open, in the order of the
// provider names and then as written. The layer's own annotations are used, so
// having opened another image with the same layer grants nothing.
func unwrapLayerKey(ctx context.Context, u KeyUnwrapper, annotations map[string]string) (*layerKey, error) {
	mac, err := parsePublicOptions(annotations[annotationPubOpts])
	if err != nil {
		return nil, err
	}
	packets, err := wrappedKeys(annotations)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return nil, fmt.Errorf("%w: no key source is configured", ErrKey)
	}
	var failures []error
	for _, packet := range packets {
		raw, err := u.Unwrap(ctx, packet)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			failures = append(failures, err)
			continue
		}
		key, err := parsePrivateOptions(raw)
		clear(raw)
		if err != nil {
			return nil, err
		}
		key.mac = mac
		return key, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrKey, errors.Join(failures...))
}

// wrappedKeys collects the packets for key providers, whatever the provider is
// called: the name is the encryptor's configuration, not part of the format.
func wrappedKeys(annotations map[string]string) ([][]byte, error) {
	var names, schemes []string
	for name := range annotations {
		if scheme, ok := strings.CutPrefix(name, annotationKeys); ok {
			schemes = append(schemes, scheme)
			if strings.HasPrefix(scheme, providerScheme) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		slices.Sort(schemes)
		return nil, fmt.Errorf("%w: the layer is encrypted for %.200q, none of them a key provider", ErrKey, schemes)
	}
	slices.Sort(names)
	var packets [][]byte
	for _, name := range names {
		for text := range strings.SplitSeq(annotations[name], ",") {
			packet, err := base64.StdEncoding.Strict().DecodeString(text)
			if err != nil || len(packet) == 0 || len(packet) > maxPacket {
				return nil, fmt.Errorf("%w: annotation %.200q is not a list of base64 values of 1 to %d bytes", ErrEncryption, name, maxPacket)
			}
			if packets = append(packets, packet); len(packets) > maxRecipients {
				return nil, fmt.Errorf("%w: more than %d wrapped keys", ErrEncryption, maxRecipients)
			}
		}
	}
	return packets, nil
}

// parsePublicOptions reads the pubopts annotation. Anybody can write it, and the
// MAC does not cover it: so it must name the one cipher, and cipher options in it,
// which would take precedence over the wrapped ones in ocicrypt, are refused.
func parsePublicOptions(annotation string) (mac [sha256.Size]byte, err error) {
	var w struct {
		Cipher  string            `json:"cipher"`
		HMAC    []byte            `json:"hmac"`
		Options map[string][]byte `json:"cipheroptions"`
	}
	if annotation == "" {
		return mac, fmt.Errorf("%w: no annotation %s", ErrEncryption, annotationPubOpts)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(annotation)
	if err != nil || len(raw) > maxPubOpts {
		return mac, fmt.Errorf("%w: %s is not base64 of at most %d bytes", ErrEncryption, annotationPubOpts, maxPubOpts)
	}
	if err := json.Unmarshal(raw, &w, json.RejectUnknownMembers(true)); err != nil {
		return mac, fmt.Errorf("%w: %s: %w", ErrEncryption, annotationPubOpts, err)
	}
	switch {
	case w.Cipher != layerCipher:
		return mac, fmt.Errorf("%w: cipher: got %.60q, want %q", ErrEncryption, w.Cipher, layerCipher)
	case len(w.HMAC) != len(mac):
		return mac, fmt.Errorf("%w: HMAC: got %d bytes, want %d", ErrEncryption, len(w.HMAC), len(mac))
	case len(w.Options) != 0:
		return mac, fmt.Errorf("%w: public cipher options", ErrEncryption)
	}
	return [sha256.Size]byte(w.HMAC), nil
}

// parsePrivateOptions reads the unwrapped private options (PLBCO). Errors never
// quote them. raw stays the caller's to clear.
func parsePrivateOptions(raw []byte) (*layerKey, error) {
	var w struct {
		Key     []byte            `json:"symkey"`
		Digest  string            `json:"digest"`
		Options map[string][]byte `json:"cipheroptions"`
	}
	if len(raw) > maxPacket {
		return nil, fmt.Errorf("%w: private options: got %d bytes, want at most %d", ErrEncryption, len(raw), maxPacket)
	}
	if json.Unmarshal(raw, &w, json.RejectUnknownMembers(true)) != nil {
		clear(w.Key)
		return nil, fmt.Errorf("%w: private options are not an object of symkey, digest and cipheroptions", ErrEncryption)
	}
	nonce, digest, err := w.Options["nonce"], v1.Hash{}, error(nil)
	switch {
	case len(w.Key) != layerKeyLen:
		err = fmt.Errorf("%w: layer key: got %d bytes, want %d", ErrEncryption, len(w.Key), layerKeyLen)
	case len(nonce) != aes.BlockSize || len(w.Options) != 1:
		err = fmt.Errorf("%w: private cipher options are not a nonce of %d bytes alone", ErrEncryption, aes.BlockSize)
	default:
		digest, err = parseDigest(w.Digest)
	}
	if err != nil {
		clear(w.Key)
		return nil, err
	}
	return &layerKey{key: w.Key, nonce: [aes.BlockSize]byte(nonce), digest: digest}, nil
}
