// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// header is a checked header of either format.
type header struct {
	Layout
	uuid    string
	keySize int
	slots   []slot // in the order they are tried
	digest  digest
	mac     []byte // of the token casemate-header, or nil
}

const (
	magicPrimary   = "LUKS\xba\xbe"
	magicSecondary = "SKUL\xba\xbe"
)

// Open reads a header and unlocks its volume key. The header begins at byte 0 of r, which is the data device or, with
// want.Detached, another. The layout is compared before any key derivation runs; ctx is looked at between slots.
//
// It returns ErrWrongKey if every slot was tried in vain, and a joined *Mismatch for each difference. The caller
// clears passphrase and closes the Volume. A slot may take maxMemoryKiB of memory.
func Open(ctx context.Context, r io.ReaderAt, passphrase []byte, want Expect) (*Volume, error) {
	if err := want.check(); err != nil {
		return nil, fmt.Errorf("opening LUKS: expected layout: %w", err)
	}
	if want.OwnHeader && want.Type != TypeLUKS2 {
		return nil, fmt.Errorf("opening LUKS: type %q cannot carry casemate's token", want.Type)
	}
	if err := checkPassphrase(passphrase); err != nil {
		return nil, fmt.Errorf("opening LUKS: %w", err)
	}
	h, err := readHeader(r, want.Detached)
	if err != nil {
		return nil, fmt.Errorf("opening LUKS: %w", err)
	}
	if err := want.compare(h.Layout); err != nil {
		return nil, fmt.Errorf("opening LUKS: %w", err)
	}
	if want.OwnHeader && h.mac == nil {
		return nil, fmt.Errorf("opening LUKS: header has no token %q, want one", tokenType)
	}
	key, err := h.unlock(ctx, r, passphrase)
	if err != nil {
		return nil, fmt.Errorf("opening LUKS: %w", err)
	}
	if h.mac != nil {
		if err := h.authenticate(key); err != nil {
			clear(key)
			return nil, fmt.Errorf("opening LUKS: %w", err)
		}
	}
	return &Volume{Layout: h.Layout, UUID: h.uuid, Key: key}, nil
}

// readHeader tells the formats apart by their version.
func readHeader(r io.ReaderAt, detached bool) (*header, error) {
	first := make([]byte, binarySize)
	if n, err := r.ReadAt(first, 0); n < len(first) {
		return nil, fmt.Errorf("reading header: %d bytes of %d: %w", n, len(first), noEOF(err))
	}
	if string(first[:6]) != magicPrimary {
		return nil, errors.New("reading header: no LUKS signature at the device's start")
	}
	switch version := int(first[6])<<8 | int(first[7]); version {
	case 1:
		return parse1(first, detached)
	case 2:
		return read2(r, first, detached)
	default:
		return nil, fmt.Errorf("reading header: version %d, want 1 or 2", version)
	}
}

// unlock tries the slots one after another. A slot that cannot be read ends the search: the device is broken.
func (h *header) unlock(ctx context.Context, r io.ReaderAt, passphrase []byte) ([]byte, error) {
	for _, s := range h.slots {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		key, err := s.unlock(r, passphrase)
		if err != nil {
			return nil, err
		}
		if h.digest.matches(key) {
			return key, nil
		}
		clear(key)
	}
	return nil, ErrWrongKey
}

// checkPassphrase refuses the passphrase that everybody knows: a key that was lost on its way must not open a header
// that the host has made for it.
func checkPassphrase(passphrase []byte) error {
	if len(passphrase) == 0 {
		return errors.New("passphrase is empty")
	}
	return nil
}
