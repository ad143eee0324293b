// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// KEKBytes is the size of a key-encryption key, raw.
const KEKBytes = 32

var (
	// ErrKey is wrapped when the KEK of a packet could not be had, with the
	// key source's own error behind it.
	ErrKey = errors.New("fetching key")
	// ErrUnwrap is wrapped when a KEK was had and did not open the packet.
	ErrUnwrap = errors.New("unwrapping layer options")
	// ErrUnauthenticated is wrapped when a packet uses A256CTR and the
	// Unwrapper does not allow that.
	ErrUnauthenticated = errors.New("unauthenticated wrap type refused")
)

// KeySource hands out keys by their resource URI.
type KeySource interface {
	// Key returns the key that uri names, raw. The bytes are the caller's,
	// who clears them.
	Key(ctx context.Context, uri string) ([]byte, error)
}

// Unwrapper opens annotation packets. It is safe for concurrent use if its
// KeySource is.
type Unwrapper struct {
	// Keys must not be nil.
	Keys KeySource
	// AllowUnauthenticated admits A256CTR packets. Only measured configuration
	// may set it. What such a packet opens to must be strictly formed layer
	// options, yet whoever knows one packet's plaintext can write others.
	AllowUnauthenticated bool
}

// Unwrap opens one annotation packet (JSON, v1 or v2) and returns the layer
// options in it: JSON of at most MaxOptionsBytes, with the layer key inside, so
// the caller clears them. A packet that A256GCM wraps is authentic to its KEK.
// The KEK is asked for on every call and cleared before Unwrap returns.
//
// The errors wrap ErrPacket, ErrProvider, ErrUnauthenticated, ErrKey or
// ErrUnwrap.
func (u *Unwrapper) Unwrap(ctx context.Context, packet []byte) ([]byte, error) {
	p, err := ParsePacket(packet)
	if err != nil {
		return nil, err
	}
	if p.WrapType == A256CTR && !u.AllowUnauthenticated {
		return nil, fmt.Errorf("%w: %s in the packet of %s", ErrUnauthenticated, p.WrapType, p.KeyID)
	}
	kek, err := u.Keys.Key(ctx, p.KeyID)
	defer clear(kek)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKey, p.KeyID, err)
	}
	block, err := newKEKCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("%w with %s: %w", ErrUnwrap, p.KeyID, err)
	}
	var plbco []byte
	if p.WrapType == A256CTR {
		plbco, err = openCTR(block, &p)
	} else {
		plbco, err = openGCM(block, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("%w with %s: %w", ErrUnwrap, p.KeyID, err)
	}
	return plbco, nil
}

func newKEKCipher(kek []byte) (cipher.Block, error) {
	if len(kek) != KEKBytes {
		return nil, fmt.Errorf("key of %d bytes, want %d", len(kek), KEKBytes)
	}
	return aes.NewCipher(kek)
}

func openGCM(block cipher.Block, p *Packet) ([]byte, error) {
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plbco, err := aead.Open(nil, p.IV, p.WrappedData, nil)
	if err != nil {
		return nil, errors.New("wrong key or altered packet")
	}
	return plbco, nil
}

func openCTR(block cipher.Block, p *Packet) ([]byte, error) {
	plbco := make([]byte, len(p.WrappedData))
	cipher.NewCTR(block, p.IV).XORKeyStream(plbco, p.WrappedData)
	if err := checkOptions(plbco); err != nil {
		clear(plbco)
		return nil, errors.New("wrong key or altered packet")
	}
	return plbco, nil
}
