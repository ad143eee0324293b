// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

const (
	ivSize  = 12
	tagSize = 16
	// overhead is what sealing adds to a value.
	overhead = ivSize + tagSize
)

// errSealed is deliberately without detail: a wrong key, a changed byte and a moved
// value are the same to AES-GCM.
var errSealed = errors.New("value does not open: wrong seal key or changed state")

// sealer encrypts values so that each opens only under the name it was sealed for.
type sealer struct{ aead cipher.AEAD }

func newSealer(masterKey []byte) (sealer, error) {
	if len(masterKey) != masterKeySize {
		return sealer{}, fmt.Errorf("seal key is %d bytes, want %d", len(masterKey), masterKeySize)
	}
	block, err := aes.NewCipher(masterKey)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return sealer{}, err
	}
	return sealer{aead: aead}, nil
}

// seal returns IV ‖ ciphertext ‖ tag.
func (s sealer) seal(bucket, key string, value []byte) []byte {
	out := make([]byte, ivSize, len(value)+overhead)
	rand.Read(out)
	return s.aead.Seal(out, out[:ivSize], value, additionalData(bucket, key))
}

// open returns the value. The caller clears it when it is secret.
func (s sealer) open(bucket, key string, sealed []byte) ([]byte, error) {
	if len(sealed) < overhead {
		return nil, errSealed
	}
	value, err := s.aead.Open(nil, sealed[:ivSize], sealed[ivSize:], additionalData(bucket, key))
	if err != nil {
		return nil, errSealed
	}
	return value, nil
}

// additionalData cannot be the same for two places: bucket names hold no NUL.
func additionalData(bucket, key string) []byte {
	return []byte("casemate keybroker v1\x00" + bucket + "\x00" + key)
}
