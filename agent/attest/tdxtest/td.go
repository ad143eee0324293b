// SPDX-License-Identifier: Apache-2.0

package tdxtest

import (
	"bytes"
	"crypto"
	_ "crypto/sha512" // SHA-384
	"encoding/binary"
	"sync"
)

// Sizes of TD report bodies.
const (
	body10 = 584
	body15 = 648
)

// septVEDisable is the attribute that every guest must have.
const septVEDisable = 1 << 28

// TD is a guest of a platform: what its report says. Its zero value has no attribute set.
type TD struct {
	Attributes       uint64
	MRTD, MRConfigID [48]byte

	mu   sync.Mutex // guards rtmr
	rtmr [4][48]byte
}

// NewTD is a guest that nobody can debug, with module version 1.
func NewTD(mrtd, mrConfigID []byte) *TD {
	td := &TD{Attributes: septVEDisable}
	copy(td.MRTD[:], mrtd)
	copy(td.MRConfigID[:], mrConfigID)
	return td
}

// Body is the TD report body that is bound to data, of the size that version's quotes
// have.
func (td *TD) Body(version uint16, data []byte) []byte {
	td.mu.Lock()
	defer td.mu.Unlock()
	body := make([]byte, body10)
	if version == 5 {
		body = make([]byte, body15)
	}
	copy(body, []byte{5, 1, 5}) // TEE_TCB_SVN
	binary.LittleEndian.PutUint64(body[120:], td.Attributes)
	copy(body[136:], td.MRTD[:])
	copy(body[184:], td.MRConfigID[:])
	for i := range td.rtmr {
		copy(body[328+48*i:], td.rtmr[i][:])
	}
	copy(body[520:], data)
	return body
}

// Extend extends a register, 0 to 3, as firmware and kernel do.
func (td *TD) Extend(register int, digest []byte) {
	td.mu.Lock()
	defer td.mu.Unlock()
	h := crypto.SHA384.New()
	h.Write(td.rtmr[register][:])
	h.Write(digest)
	copy(td.rtmr[register][:], h.Sum(nil))
}

// SetRegister gives a register the value that a recorded log replays to.
func (td *TD) SetRegister(register int, value [48]byte) {
	td.mu.Lock()
	defer td.mu.Unlock()
	td.rtmr[register] = value
}

// RTMR3 is the register that is left to the guest, as an eventlog.Register.
type RTMR3 struct{ TD *TD }

// Number is that of RTMR3 in an event log.
func (RTMR3) Number() uint32 { return 4 }

// Hash is SHA-384.
func (RTMR3) Hash() crypto.Hash { return crypto.SHA384 }

// Value returns the 48 bytes.
func (r RTMR3) Value() ([]byte, error) {
	r.TD.mu.Lock()
	defer r.TD.mu.Unlock()
	return bytes.Clone(r.TD.rtmr[3][:]), nil
}

// Extend takes a digest of 48 bytes.
func (r RTMR3) Extend(digest []byte) error {
	r.TD.Extend(3, digest)
	return nil
}
