// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"crypto/sha1" // LUKS1 only: an HMAC and a diffuser, where collisions do not matter
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/pbkdf2"
)

// Costs come from the header, so they have caps. Memory and lanes are what cryptsetup itself writes at most.
const (
	maxMemoryKiB  = 1 << 20 // 1 GiB
	maxLanes      = 4
	maxPasses     = 1 << 12
	maxWorkKiB    = 64 << 20 // passes times memory: about a minute on a slow core
	minIterations = 1000     // cryptsetup's least
	maxIterations = 1 << 26  // about half a minute
	minSalt       = 8
	maxSalt       = 64
)

// The key derivations of a slot.
const (
	KDFArgon2id = "argon2id"
	KDFArgon2i  = "argon2i"
	KDFPBKDF2   = "pbkdf2"
)

// kdf is one key derivation with its costs. Exactly the members that its type has are set.
type kdf struct {
	Type       string `json:"type"`
	Salt       []byte `json:"salt"`
	Hash       string `json:"hash,omitzero"`       // pbkdf2
	Iterations int    `json:"iterations,omitzero"` // pbkdf2
	Time       int    `json:"time,omitzero"`       // argon2: passes
	Memory     int    `json:"memory,omitzero"`     // argon2: KiB
	CPUs       int    `json:"cpus,omitzero"`       // argon2: lanes
}

// hashOf returns a hash of the closed list; SHA-1 is for LUKS1 alone.
func hashOf(name string) (func() hash.Hash, bool) {
	switch name {
	case "sha1":
		return sha1.New, true
	case "sha256":
		return sha256.New, true
	case "sha512":
		return sha512.New, true
	}
	return nil, false
}

func checkHash2(name string) error {
	if name != "sha256" && name != "sha512" {
		return fmt.Errorf("hash %q, want sha256 or sha512", name)
	}
	return nil
}

func checkIterations(n int) error {
	if n < minIterations || n > maxIterations {
		return fmt.Errorf("%d iterations, want %d to %d", n, minIterations, maxIterations)
	}
	return nil
}

func (k kdf) check() error {
	if len(k.Salt) < minSalt || len(k.Salt) > maxSalt {
		return fmt.Errorf("salt of %d bytes, want %d to %d", len(k.Salt), minSalt, maxSalt)
	}
	switch k.Type {
	case KDFPBKDF2:
		if k.Time != 0 || k.Memory != 0 || k.CPUs != 0 {
			return fmt.Errorf("%s with argon2's costs", k.Type)
		}
		if err := checkHash2(k.Hash); err != nil {
			return err
		}
		return checkIterations(k.Iterations)
	case KDFArgon2id, KDFArgon2i:
		switch {
		case k.Hash != "" || k.Iterations != 0:
			return fmt.Errorf("%s with pbkdf2's costs", k.Type)
		case k.CPUs < 1 || k.CPUs > maxLanes:
			return fmt.Errorf("%s with %d lanes, want 1 to %d", k.Type, k.CPUs, maxLanes)
		case k.Memory < 8*k.CPUs || k.Memory > maxMemoryKiB:
			return fmt.Errorf("%s with %d KiB of memory, want %d to %d", k.Type, k.Memory, 8*k.CPUs, maxMemoryKiB)
		case k.Time < 1 || k.Time > maxPasses:
			return fmt.Errorf("%s with %d passes, want 1 to %d", k.Type, k.Time, maxPasses)
		case k.Time*k.Memory > maxWorkKiB:
			return fmt.Errorf("%s with %d passes over %d KiB, want a product up to %d", k.Type, k.Time, k.Memory, maxWorkKiB)
		}
		return nil
	}
	return fmt.Errorf("key derivation %q, want argon2id, argon2i or pbkdf2", k.Type)
}

// derive makes size bytes, which the caller clears. The costs have been checked.
func (k kdf) derive(passphrase []byte, size int) ([]byte, error) {
	switch k.Type {
	case KDFArgon2id:
		return argon2.IDKey(passphrase, k.Salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(size)), nil
	case KDFArgon2i:
		return argon2.Key(passphrase, k.Salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(size)), nil
	}
	newHash, ok := hashOf(k.Hash)
	if !ok {
		return nil, fmt.Errorf("deriving a slot's key: hash %q is not known", k.Hash)
	}
	return pbkdf2.Key(passphrase, k.Salt, k.Iterations, size, newHash), nil
}

// digest recognises the volume key.
type digest struct {
	hash       string
	iterations int
	salt, sum  []byte
}

func (d digest) of(key []byte) []byte {
	newHash, _ := hashOf(d.hash)
	return pbkdf2.Key(key, d.salt, d.iterations, len(d.sum), newHash)
}

func (d digest) matches(key []byte) bool {
	return subtle.ConstantTimeCompare(d.of(key), d.sum) == 1
}
