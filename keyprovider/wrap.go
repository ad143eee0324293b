// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"
)

// Wrap wraps layer options with A256GCM under a fresh random IV and returns a
// v1 annotation packet (JSON). kek has 32 bytes and stays the caller's; keyID
// has the full form "kbs:///REPOSITORY/TYPE/TAG"; plbco is what ocicrypt calls
// private layer block cipher options.
//
// Random 96-bit IVs keep one KEK good for 2^32 packets (NIST SP 800-38D,
// section 8.3), more layers than an owner encrypts.
func Wrap(kek []byte, keyID string, plbco []byte) ([]byte, error) {
	if err := CheckKeyID(keyID); err != nil {
		return nil, fmt.Errorf("wrapping layer options: %w", err)
	}
	if len(plbco) > MaxOptionsBytes {
		return nil, fmt.Errorf("wrapping layer options with %s: %d bytes, want at most %d", keyID, len(plbco), MaxOptionsBytes)
	}
	if err := checkOptions(plbco); err != nil {
		return nil, fmt.Errorf("wrapping layer options with %s: %w", keyID, err)
	}
	block, err := newKEKCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("wrapping layer options with %s: %w", keyID, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("wrapping layer options with %s: %w", keyID, err)
	}
	iv := make([]byte, gcmIVBytes)
	if _, err := rand.Read(iv); err != nil {
		return nil, fmt.Errorf("wrapping layer options with %s: %w", keyID, err)
	}
	p := Packet{KeyID: keyID, WrapType: A256GCM, IV: iv, WrappedData: aead.Seal(nil, iv, plbco, nil)}
	return p.Encode()
}
