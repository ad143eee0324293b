// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// TPMRegisters is how many PCRs a quote covers: all of the SHA-256 bank.
	TPMRegisters = 24
	// TPMInitDataRegister is the PCR that the initdata digest goes into.
	TPMInitDataRegister = 8

	// maxTPMAttestSize is four times a quote with the largest qualifying data and name.
	maxTPMAttestSize = 1 << 10
	// maxTPMSignatureSize holds a signature by RSA-4096.
	maxTPMSignatureSize = 6 + 512
)

// Numbers of TCG TPM 2.0 Library part 2.
const (
	tpmGenerated   = 0xFF544347 // TPM_GENERATED_VALUE: signed data that a TPM made itself
	tpmAttestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
	tpmAlgSHA256   = 0x000B
	tpmAlgRSASSA   = 0x0014
)

// TPMRegisterValues are PCR 0 to 23 of the SHA-256 bank.
type TPMRegisterValues [TPMRegisters][sha256.Size]byte

// Digest is what a quote over all of the registers signs: SHA-256 over their values.
func (v *TPMRegisterValues) Digest() [sha256.Size]byte {
	h := sha256.New()
	for i := range v {
		h.Write(v[i][:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// ExtendTPM returns what a SHA-256 register holds after digest was extended into it.
func ExtendTPM(register [sha256.Size]byte, digest []byte) [sha256.Size]byte {
	return sha256.Sum256(append(register[:], digest...))
}

// TPMQuote is a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE, TCG TPM 2.0 Library part 2
// section 10.12.12; all numbers are big-endian.
type TPMQuote struct {
	// ExtraData is what the quote is bound to.
	ExtraData []byte
	// Selection has the quoted PCRs, one bit each, PCR 0 the lowest bit of byte 0. It is
	// of the SHA-256 bank: no other bank passes the parser.
	Selection []byte
	// RegisterDigest is over the values of the selected PCRs.
	RegisterDigest []byte
	// ResetCount and RestartCount count the resets of the TPM and its resumptions.
	ResetCount, RestartCount uint32
}

// WholeBank reports whether all TPMRegisters are quoted.
func (q *TPMQuote) WholeBank() bool {
	return len(q.Selection) == 3 && q.Selection[0]&q.Selection[1]&q.Selection[2] == 0xFF
}

// ParseTPMQuote reads a quote and nothing else: another magic, another type of
// attestation, another bank or bytes left over are errors.
func ParseTPMQuote(raw []byte) (TPMQuote, error) {
	q, err := parseTPMQuote(raw)
	if err != nil {
		return TPMQuote{}, fmt.Errorf("parsing TPM quote: %w", err)
	}
	return q, nil
}

func parseTPMQuote(raw []byte) (q TPMQuote, err error) {
	if len(raw) > maxTPMAttestSize {
		return q, fmt.Errorf("%d bytes, at most %d allowed", len(raw), maxTPMAttestSize)
	}
	c := &cutter{rest: raw}
	if magic := c.big32("magic"); c.err == nil && magic != tpmGenerated {
		return q, fmt.Errorf("magic %#x, want %#x: no TPM made this", magic, tpmGenerated)
	}
	if kind := c.big16("type"); c.err == nil && kind != tpmAttestQuote {
		return q, fmt.Errorf("attestation type %#x, want %#x", kind, tpmAttestQuote)
	}
	c.bigSized16("qualified signer")
	q.ExtraData = c.bigSized16("extra data")
	c.take("clock", 8)
	q.ResetCount, q.RestartCount = c.big32("reset count"), c.big32("restart count")
	if safe := c.take("safe", 1); c.err == nil && safe[0] > 1 {
		return q, fmt.Errorf("safe is %d, want 0 or 1", safe[0])
	}
	c.take("firmware version", 8)
	if n := c.big32("number of banks"); c.err == nil && n != 1 {
		return q, fmt.Errorf("%d banks quoted, want 1", n)
	}
	if bank := c.big16("bank"); c.err == nil && bank != tpmAlgSHA256 {
		return q, fmt.Errorf("bank %#x quoted, want %#x (SHA-256)", bank, tpmAlgSHA256)
	}
	if size := c.take("selection size", 1); c.err == nil {
		q.Selection = c.take("selection", uint32(size[0]))
	}
	q.RegisterDigest = c.bigSized16("register digest")
	return q, c.end("quote")
}

// ParseTPMSignature returns the signature of a TPMT_SIGNATURE, part 2 section 11.3.4,
// which must be RSASSA with SHA-256: 1 to 512 bytes.
func ParseTPMSignature(raw []byte) ([]byte, error) {
	sig, err := parseTPMSignature(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing TPM signature: %w", err)
	}
	return sig, nil
}

func parseTPMSignature(raw []byte) ([]byte, error) {
	if len(raw) > maxTPMSignatureSize {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(raw), maxTPMSignatureSize)
	}
	c := &cutter{rest: raw}
	scheme, hash := c.big16("scheme"), c.big16("hash algorithm")
	if c.err == nil && (scheme != tpmAlgRSASSA || hash != tpmAlgSHA256) {
		return nil, fmt.Errorf("scheme %#x with hash %#x, want %#x with %#x (RSASSA, SHA-256)", scheme, hash, tpmAlgRSASSA, tpmAlgSHA256)
	}
	sig := c.bigSized16("signature")
	if err := c.end("signature"); err != nil {
		return nil, err
	}
	if len(sig) == 0 {
		return nil, errors.New("empty")
	}
	return sig, nil
}

func (c *cutter) big16(what string) uint16 {
	if b := c.take(what, 2); c.err == nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cutter) big32(what string) uint32 {
	if b := c.take(what, 4); c.err == nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cutter) bigSized16(what string) []byte {
	return c.take(what, uint32(c.big16(what+" size")))
}
