// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"errors"
	"fmt"
	"slices"
)

// headerAlignment is that of every area of a LUKS2 header.
const headerAlignment = 4096

// maxKeyslotsSize caps the space for key areas, as cryptsetup does.
const maxKeyslotsSize = 128 << 20

// header checks the metadata against itself and against the closed lists. copySize is that of one header copy.
func (m *metadata) header(copySize uint64, detached bool) (*header, error) {
	if err := m.Config.check(copySize); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(m.Segments) != 1 || len(m.Digests) != 1 {
		return nil, fmt.Errorf("%d segments and %d digests, want one of each: another number means a reencryption or a layout that is not offered", len(m.Segments), len(m.Digests))
	}
	s, ok := m.Segments["0"]
	if !ok {
		return nil, errors.New("no segment 0")
	}
	layout, err := s.layout()
	if err != nil {
		return nil, fmt.Errorf("segment 0: %w", err)
	}
	layout.Detached = detached
	areasEnd := 2*copySize + m.Config.KeyslotsSize.value
	if !detached && layout.Offset < areasEnd {
		return nil, fmt.Errorf("segment 0: data begins at %d, inside the header that ends at %d", layout.Offset, areasEnd)
	}
	keySize, err := layout.keySize()
	if err != nil {
		return nil, fmt.Errorf("segment 0: %w", err)
	}
	h := &header{Layout: layout, keySize: keySize}
	if h.slots, err = m.slots(keySize, 2*copySize, areasEnd); err != nil {
		return nil, err
	}
	d, ok := m.Digests["0"]
	if !ok {
		return nil, errors.New("no digest 0")
	}
	if h.digest, err = d.check(m.Keyslots); err != nil {
		return nil, fmt.Errorf("digest 0: %w", err)
	}
	if h.mac, err = findToken(m.Tokens); err != nil {
		return nil, err
	}
	return h, nil
}

func (c config) check(copySize uint64) error {
	switch {
	case c.Requirements != nil && len(c.Requirements.Mandatory) > 0:
		return fmt.Errorf("mandatory requirements %q, want none", c.Requirements.Mandatory)
	case !c.JSONSize.found || c.JSONSize.value != copySize-binarySize:
		return fmt.Errorf("json_size %d, want %d", c.JSONSize.value, copySize-binarySize)
	case !c.KeyslotsSize.found || c.KeyslotsSize.value > maxKeyslotsSize || c.KeyslotsSize.value%headerAlignment != 0:
		return fmt.Errorf("keyslots_size %d, want a multiple of %d up to %d", c.KeyslotsSize.value, headerAlignment, maxKeyslotsSize)
	}
	// Flags ask for a way of activating. The opener's own configuration decides that, so the known ones have no
	// effect; allow-discards would tell the host which blocks are in use and is refused with the unknown ones.
	for _, flag := range c.Flags {
		switch flag {
		case "same-cpu-crypt", "submit-from-crypt-cpus", "no-journal", "no-read-workqueue", "no-write-workqueue":
		default:
			return fmt.Errorf("activation flag %q is not accepted", flag)
		}
	}
	return nil
}

func (s segment) layout() (Layout, error) {
	l := Layout{Type: TypeLUKS2, Cipher: s.Encryption, SectorSize: s.SectorSize, Offset: s.Offset.value}
	switch {
	case s.Type != "crypt":
		return l, fmt.Errorf("type %q, want crypt", s.Type)
	case !s.Offset.found:
		return l, errors.New("no offset")
	case !s.IVTweak.found || s.IVTweak.value != 0:
		return l, fmt.Errorf("iv_tweak %d, want 0", s.IVTweak.value)
	}
	if s.Size != dynamic {
		size, err := parseDecimal(s.Size)
		if err != nil || size == 0 {
			return l, fmt.Errorf("size %q, want %q or bytes", s.Size, dynamic)
		}
		l.Size = size
	}
	if i := s.Integrity; i != nil {
		if i.Type == "" || i.JournalEncryption != "none" || i.JournalIntegrity != "none" {
			return l, fmt.Errorf("integrity %q with journal encryption %q and journal integrity %q, want none for both", i.Type, i.JournalEncryption, i.JournalIntegrity)
		}
		l.Integrity = i.Type
	}
	return l, l.check()
}

// slots returns the key slots in the order of their numbers.
func (m *metadata) slots(keySize int, low, high uint64) ([]slot, error) {
	if len(m.Keyslots) > maxObjects {
		return nil, fmt.Errorf("%d key slots, want at most %d", len(m.Keyslots), maxObjects)
	}
	var list []slot
	for name, k := range m.Keyslots {
		id, err := objectID(name)
		if err != nil {
			return nil, fmt.Errorf("key slot: %w", err)
		}
		if err := k.check(keySize); err != nil {
			return nil, fmt.Errorf("key slot %d: %w", id, err)
		}
		list = append(list, slot{id: id, kdf: k.KDF, afHash: k.AF.Hash, offset: k.Area.Offset.value, keySize: keySize})
	}
	slices.SortFunc(list, func(a, b slot) int { return a.id - b.id })
	var used areas
	for _, s := range list {
		size := m.Keyslots[fmt.Sprint(s.id)].Area.Size.value
		if err := used.add(s.offset, size, low, high); err != nil {
			return nil, fmt.Errorf("key slot %d: %w", s.id, err)
		}
	}
	return list, nil
}

func (k keyslot) check(keySize int) error {
	a := k.Area
	switch {
	case k.Type != "luks2":
		return fmt.Errorf("type %q, want luks2", k.Type)
	case k.KeySize != keySize:
		return fmt.Errorf("key of %d bytes, want %d", k.KeySize, keySize)
	case k.Priority != nil && (*k.Priority < 0 || *k.Priority > 2):
		return fmt.Errorf("priority %d, want 0 to 2", *k.Priority)
	case k.AF.Type != "luks1" || k.AF.Stripes != stripes:
		return fmt.Errorf("splitter %q with %d stripes, want luks1 with %d", k.AF.Type, k.AF.Stripes, stripes)
	case a.Type != "raw":
		return fmt.Errorf("area type %q, want raw", a.Type)
	case a.Encryption != CipherAESXTS || a.KeySize != areaKeySize:
		return fmt.Errorf("area cipher %q with a key of %d bytes, want %q with %d", a.Encryption, a.KeySize, CipherAESXTS, areaKeySize)
	case !a.Offset.found || a.Offset.value%headerAlignment != 0:
		return fmt.Errorf("area at %d, want a multiple of %d", a.Offset.value, headerAlignment)
	case !a.Size.found || a.Size.value%headerAlignment != 0 || a.Size.value < uint64(areaLen(keySize)):
		return fmt.Errorf("area of %d bytes, want a multiple of %d from %d on", a.Size.value, headerAlignment, areaLen(keySize))
	}
	if err := checkHash2(k.AF.Hash); err != nil {
		return fmt.Errorf("splitter: %w", err)
	}
	return k.KDF.check()
}

// check wants the digest to cover the one segment and every slot, so that no slot opens something else.
func (d keyDigest) check(slots map[string]keyslot) (digest, error) {
	switch {
	case d.Type != "pbkdf2":
		return digest{}, fmt.Errorf("type %q, want pbkdf2", d.Type)
	case len(d.Segments) != 1 || d.Segments[0] != "0":
		return digest{}, fmt.Errorf("covers segments %q, want only 0", d.Segments)
	case len(d.Keyslots) != len(slots):
		return digest{}, fmt.Errorf("covers %d key slots of %d", len(d.Keyslots), len(slots))
	case len(d.Salt) < minSalt || len(d.Salt) > maxSalt:
		return digest{}, fmt.Errorf("salt of %d bytes, want %d to %d", len(d.Salt), minSalt, maxSalt)
	}
	for i, name := range d.Keyslots {
		if _, ok := slots[name]; !ok || slices.Contains(d.Keyslots[:i], name) {
			return digest{}, fmt.Errorf("covers key slot %q, which is not there or named twice", name)
		}
	}
	if err := checkHash2(d.Hash); err != nil {
		return digest{}, err
	}
	if newHash, _ := hashOf(d.Hash); len(d.Digest) != newHash().Size() {
		return digest{}, fmt.Errorf("digest of %d bytes, want the %d of %s", len(d.Digest), newHash().Size(), d.Hash)
	}
	return digest{hash: d.Hash, iterations: d.Iterations, salt: d.Salt, sum: d.Digest}, checkIterations(d.Iterations)
}
