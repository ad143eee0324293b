// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// DefaultOffset is where cryptsetup lets data begin behind a LUKS2 header, and the length of a detached one.
const DefaultOffset = 16 << 20

// RecordsSize is how many bytes before the data Create keeps free of key areas, for whoever opens the volume; cryptsetup
// does not touch them. A detached header has none.
const RecordsSize = 64 << 10

// The least and the greatest Layout.Offset of a new header on its data device.
const (
	minNewOffset = 1 << 20
	maxNewOffset = 2*minHeader + maxKeyslotsSize
)

const (
	saltSize = 32
	// digestIterations is cryptsetup's least: the volume key is random, so no search for it needs slowing.
	digestIterations = minIterations
	blankChunk       = 1 << 20
)

// ErrNotBlank is returned by Create for a target that holds anything.
var ErrNotBlank = errors.New("target is not blank")

// Target is where a header is created; an *os.File is one.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Cost says how a passphrase becomes a slot's key. A passphrase with the entropy of a key, which a relying party hands
// out, needs no more than the least; one that people remember does.
type Cost struct {
	KDF        string // KDFArgon2id, KDFArgon2i or KDFPBKDF2 (with SHA-256)
	Iterations int    // pbkdf2: 1000 and more
	Passes     int    // argon2
	MemoryKiB  int    // argon2: up to 1 GiB
	Lanes      int    // argon2: 1 to 4
}

// Create writes a LUKS2 header with a random volume key, one key slot and casemate's token to target, and returns the
// volume, opened. The caller clears passphrase and closes the Volume.
//
// There is one rule against overwriting and no way around it: everything that the header and the first block of data
// will cover must read as zeros, or the answer is ErrNotBlank and nothing was written. That refuses every known
// signature without a list of them; who wants to use a disk again zeroes its start first. On a detached target the
// first DefaultOffset bytes are looked at, and bytes behind the end of a file count as zeros; the data device is the
// caller's to look at.
//
// The primary copy is written last, and each step is synced, so that a header cut off by a power failure does not open
// and is no blank target either.
func Create(target Target, layout Layout, passphrase []byte, cost Cost) (*Volume, error) {
	k := kdf{Type: cost.KDF, Salt: random(saltSize), Time: cost.Passes, Memory: cost.MemoryKiB, CPUs: cost.Lanes, Iterations: cost.Iterations}
	if k.Type == KDFPBKDF2 {
		k.Hash = "sha256"
	}
	if err := errors.Join(checkNew(layout), k.check(), checkPassphrase(passphrase)); err != nil {
		return nil, fmt.Errorf("creating LUKS2: %w", err)
	}
	if err := checkBlank(target, layout); err != nil {
		return nil, fmt.Errorf("creating LUKS2: %w", err)
	}
	size, err := layout.keySize()
	if err != nil {
		return nil, fmt.Errorf("creating LUKS2: %w", err)
	}
	v := &Volume{Layout: layout, UUID: uuid.NewString(), Key: random(size)}
	if err := v.write(target, k, passphrase); err != nil {
		v.Close()
		return nil, fmt.Errorf("creating LUKS2: %w", err)
	}
	return v, nil
}

func checkNew(l Layout) error {
	switch {
	case l.Type != TypeLUKS2:
		return fmt.Errorf("type %q, want %q", l.Type, TypeLUKS2)
	case !l.Detached && (l.Offset < minNewOffset || l.Offset > maxNewOffset || l.Offset%headerAlignment != 0):
		return fmt.Errorf("offset %d, want a multiple of %d from %d to %d", l.Offset, headerAlignment, minNewOffset, maxNewOffset)
	}
	return l.check()
}

// checkBlank reads everything that will be covered.
func checkBlank(r io.ReaderAt, l Layout) error {
	end := int64(DefaultOffset)
	if !l.Detached {
		end = int64(l.Offset) + headerAlignment
	}
	b := make([]byte, blankChunk)
	for at := int64(0); at < end; at += blankChunk {
		want := int(min(blankChunk, end-at))
		n, err := r.ReadAt(b[:want], at)
		if !zero(b[:n]) {
			return fmt.Errorf("%w: bytes are set between %d and %d", ErrNotBlank, at, at+int64(n))
		}
		switch {
		case n == want:
		case err == io.EOF && l.Detached:
			return nil
		default:
			return fmt.Errorf("reading target at %d: %w", at+int64(n), noEOF(err))
		}
	}
	return nil
}

// write lays the header down: key area, secondary copy, primary copy.
func (v *Volume) write(target Target, k kdf, passphrase []byte) error {
	s := slot{kdf: k, afHash: "sha256", offset: 2 * minHeader, keySize: len(v.Key)}
	area, err := s.lock(v.Key, passphrase)
	if err != nil {
		return err
	}
	m, err := v.metadata(s)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding metadata: %w", err)
	}
	if len(encoded) >= minHeader-binarySize {
		return fmt.Errorf("metadata of %d bytes, want less than %d", len(encoded), minHeader-binarySize)
	}
	steps := []part{
		{int64(s.offset), area},
		{minHeader, encodeCopy(minHeader, magicSecondary, minHeader, v.UUID, random(v2UUID-v2Salt), encoded)},
		{0, encodeCopy(minHeader, magicPrimary, 0, v.UUID, random(v2UUID-v2Salt), encoded)},
	}
	if v.Detached { // gives a new file its full length, as cryptsetup's tools want it
		steps = append([]part{{DefaultOffset - headerAlignment, make([]byte, headerAlignment)}}, steps...)
	}
	return writeParts(target, steps)
}

// part is something to be written at a place.
type part struct {
	offset int64
	bytes  []byte
}

// writeParts writes one part after another, each safe before the next begins.
func writeParts(target Target, parts []part) error {
	for _, p := range parts {
		if _, err := target.WriteAt(p.bytes, p.offset); err != nil {
			return fmt.Errorf("writing %d bytes at %d: %w", len(p.bytes), p.offset, err)
		}
		if err := target.Sync(); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
	}
	return nil
}

// metadata describes a volume with one slot, in the members that cryptsetup writes.
func (v *Volume) metadata(s slot) (*metadata, error) {
	mac, err := v.Layout.mac(v.Key, v.UUID)
	if err != nil {
		return nil, err
	}
	token, err := json.Marshal(ownToken{Type: tokenType, Keyslots: []string{"0"}, HMAC: mac})
	if err != nil {
		return nil, fmt.Errorf("encoding token: %w", err)
	}
	end := uint64(DefaultOffset)
	if !v.Detached {
		end = v.Offset - RecordsSize
	}
	areaSize := (uint64(areaLen(s.keySize)) + headerAlignment - 1) / headerAlignment * headerAlignment
	d := digest{hash: "sha256", iterations: digestIterations, salt: random(saltSize), sum: make([]byte, saltSize)}
	seg := segment{Type: "crypt", Offset: number(v.Offset), Size: sizeText(v.Size), IVTweak: number(0), Encryption: v.Cipher, SectorSize: v.SectorSize}
	if v.Integrity != IntegrityNone {
		seg.Integrity = &integrity{Type: v.Integrity, JournalEncryption: "none", JournalIntegrity: "none"}
	}
	return &metadata{
		Keyslots: map[string]keyslot{"0": {Type: "luks2", KeySize: s.keySize, AF: af{Type: "luks1", Stripes: stripes, Hash: s.afHash},
			Area: area{Type: "raw", Offset: number(s.offset), Size: number(areaSize), Encryption: CipherAESXTS, KeySize: areaKeySize}, KDF: s.kdf}},
		Tokens:   map[string]jsontext.Value{"0": token},
		Segments: map[string]segment{"0": seg},
		Digests: map[string]keyDigest{"0": {Type: "pbkdf2", Keyslots: []string{"0"}, Segments: []string{"0"}, Hash: d.hash,
			Iterations: d.iterations, Salt: d.salt, Digest: d.of(v.Key)}},
		Config: config{JSONSize: number(minHeader - binarySize), KeyslotsSize: number(end - 2*minHeader)},
	}, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
