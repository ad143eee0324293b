// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

const (
	// maxKeyring bounds an OpenPGP key with its signatures by others.
	maxKeyring = 1 << 20
	// maxMessage bounds one signed OpenPGP message around a payload.
	maxMessage = 128 << 10
	// gpgPayloadType is critical.type of containers-signature(5).
	gpgPayloadType = "atomic container signature"
)

// parseKeyring reads public keys in OpenPGP's binary or armored form. Secret keys
// have no place in a policy.
func parseKeyring(raw []byte) (openpgp.EntityList, error) {
	if len(raw) > maxKeyring {
		return nil, fmt.Errorf("OpenPGP keyring of %d bytes, at most %d", len(raw), maxKeyring)
	}
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	ring, err := read(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading OpenPGP keyring: %w", err)
	}
	if len(ring) == 0 || len(ring) > maxKeys {
		return nil, fmt.Errorf("OpenPGP keyring of %d keys, want 1 to %d", len(ring), maxKeys)
	}
	for _, e := range ring {
		if e.PrivateKey != nil {
			return nil, errors.New("OpenPGP keyring has a secret key, want public keys")
		}
	}
	return ring, nil
}

// openSigned returns the content of a message under a good signature by a key of
// ring: one that is not revoked, and neither key nor signature expired by this
// machine's clock. The clock only ever refuses: set back by the host, it is as if
// no expiry had been written.
func openSigned(ring openpgp.EntityList, message []byte) ([]byte, error) {
	if len(message) > maxMessage {
		return nil, fmt.Errorf("message of %d bytes, at most %d", len(message), maxMessage)
	}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), ring, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("not a signed OpenPGP message: %w", err)
	}
	if !md.IsSigned || md.IsEncrypted {
		return nil, errors.New("not a signed OpenPGP message in clear")
	}
	if md.SignedBy == nil {
		return nil, fmt.Errorf("not by an accepted key, but by %016x", md.SignedByKeyId)
	}
	// The verdict is there when the content has been read to its end.
	content, err := io.ReadAll(io.LimitReader(md.UnverifiedBody, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("reading signed content: %w", err)
	}
	switch {
	case len(content) > maxPayload:
		return nil, fmt.Errorf("payload of more than %d bytes", maxPayload)
	case md.SignatureError != nil:
		return nil, fmt.Errorf("bad signature: %w", md.SignatureError)
	case md.Signature == nil:
		return nil, errors.New("signature is missing behind the content")
	case md.Signature.Hash != crypto.SHA256 && md.Signature.Hash != crypto.SHA384 && md.Signature.Hash != crypto.SHA512:
		return nil, fmt.Errorf("signature over %s, want SHA-256 or longer", md.Signature.Hash)
	}
	return content, nil
}

// fingerprints names a ring's keys, for messages.
func fingerprints(ring openpgp.EntityList) []string {
	ids := make([]string, len(ring))
	for i, e := range ring {
		ids[i] = "OpenPGP " + strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
	}
	return ids
}
