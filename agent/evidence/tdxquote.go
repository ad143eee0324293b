// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes of the parts of a quote (Intel TDX DCAP Quoting Library API, appendix
// "Quote Format"). All integers are little-endian.
const (
	tdxHeaderSize     = 48
	tdxDescriptorSize = 6 // version 5: body type u16, body size u32
	tdxBody10Size     = 584
	tdxBody15Size     = 648
	tdxSignatureSize  = 64
	tdxKeySize        = 64
	sgxReportSize     = 384
)

// Values that this parser knows; others are refused with the name of their field.
const (
	tdxKeyP256   = 2    // attestation key type: ECDSA over P-256
	tdxTEEType   = 0x81 // TEE type: TDX
	tdxBody10    = 2    // body type: TD report of TDX 1.0
	tdxBody15    = 3    // body type: TD report of TDX 1.5
	certQEReport = 6    // certification data: QE report
	certPCKChain = 5    // certification data: PCK chain as PEM
)

// TDXQuote is a quote of version 4 or 5 taken apart. Its parts alias the bytes given to
// ParseTDXQuote. Nothing about signatures or values has been checked.
type TDXQuote struct {
	// Signed are the bytes that the attestation key signs: all before the signature data.
	Signed []byte
	// Body is the TD report inside Signed.
	Body TDReport
	// Signature is r and s by the attestation key, 32 bytes each, big-endian.
	Signature []byte
	// AttestationKey is x and y on P-256, 32 bytes each, big-endian.
	AttestationKey []byte
	// QEReport is the quoting enclave's SGX report that the PCK signs.
	QEReport QEReport
	// QESignature is r and s by the PCK, 32 bytes each, big-endian.
	QESignature []byte
	// QEAuthData is bound with AttestationKey into QEReport's report data.
	QEAuthData []byte
	// PCKChain is PEM, leaf first, without the NUL that some platforms end it with.
	PCKChain []byte
}

// Version returns 4 or 5.
func (q *TDXQuote) Version() uint16 { return binary.LittleEndian.Uint16(q.Signed) }

// QEVendorID returns the 16 bytes that name who made the quoting enclave.
func (q *TDXQuote) QEVendorID() []byte { return q.Signed[12:28] }

// ParseTDXQuote takes a quote apart. Behind the signature data only zeros may follow,
// which is how hosts pad the buffer that a guest gets its quote in.
func ParseTDXQuote(raw []byte) (*TDXQuote, error) {
	q, err := parseTDXQuote(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing TDX quote: %w", err)
	}
	return q, nil
}

func parseTDXQuote(raw []byte) (*TDXQuote, error) {
	if len(raw) > MaxTDXQuoteSize {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(raw), MaxTDXQuoteSize)
	}
	q := &TDXQuote{}
	signed, err := tdxSignedSize(raw)
	if err != nil {
		return nil, err
	}
	q.Signed = raw[:signed.end]
	q.Body = TDReport{raw: raw[signed.body:signed.end]}
	rest := &cutter{rest: raw[signed.end:]}
	data := &cutter{rest: rest.sized32("signature data")}
	if rest.err != nil {
		return nil, rest.err
	}
	if len(bytes.Trim(rest.rest, "\x00")) != 0 {
		return nil, errors.New("bytes other than zero behind the signature data")
	}
	q.Signature = data.take("signature", tdxSignatureSize)
	q.AttestationKey = data.take("attestation key", tdxKeySize)
	qe := &cutter{rest: data.certification(certQEReport), err: data.err}
	q.QEReport = QEReport{raw: qe.take("QE report", sgxReportSize)}
	q.QESignature = qe.take("QE report signature", tdxSignatureSize)
	q.QEAuthData = qe.sized16("QE authentication data")
	q.PCKChain = bytes.TrimSuffix(qe.certification(certPCKChain), []byte{0})
	return q, errors.Join(data.end("signature data"), qe.end("QE certification data"))
}

type tdxSpan struct{ body, end int }

// tdxSignedSize checks the header, and in version 5 the body's descriptor.
func tdxSignedSize(raw []byte) (tdxSpan, error) {
	if len(raw) < tdxHeaderSize+tdxDescriptorSize {
		return tdxSpan{}, fmt.Errorf("%d bytes, too short for a header", len(raw))
	}
	if t := binary.LittleEndian.Uint16(raw[2:]); t != tdxKeyP256 {
		return tdxSpan{}, fmt.Errorf("attestation key type %d, want %d", t, tdxKeyP256)
	}
	if t := binary.LittleEndian.Uint32(raw[4:]); t != tdxTEEType {
		return tdxSpan{}, fmt.Errorf("TEE type %#x, want %#x", t, tdxTEEType)
	}
	span := tdxSpan{body: tdxHeaderSize, end: tdxHeaderSize + tdxBody10Size}
	switch v := binary.LittleEndian.Uint16(raw); v {
	case 4:
	case 5:
		kind, size := binary.LittleEndian.Uint16(raw[48:]), binary.LittleEndian.Uint32(raw[50:])
		want := map[uint16]uint32{tdxBody10: tdxBody10Size, tdxBody15: tdxBody15Size}[kind]
		if want == 0 {
			return tdxSpan{}, fmt.Errorf("body type %d, want %d or %d", kind, tdxBody10, tdxBody15)
		}
		if size != want {
			return tdxSpan{}, fmt.Errorf("body of type %d is %d bytes, want %d", kind, size, want)
		}
		span.body += tdxDescriptorSize
		span.end = span.body + int(size)
	default:
		return tdxSpan{}, fmt.Errorf("version %d, want 4 or 5", v)
	}
	if len(raw) < span.end {
		return tdxSpan{}, fmt.Errorf("%d bytes, too short for a body that ends at %d", len(raw), span.end)
	}
	return span, nil
}

// cutter takes parts off the front. The first error sticks.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) take(what string, size uint32) []byte {
	if c.err == nil && uint64(size) > uint64(len(c.rest)) {
		c.err = fmt.Errorf("%s: %d bytes left, want %d", what, len(c.rest), size)
	}
	if c.err != nil {
		return nil
	}
	part := c.rest[:size:size]
	c.rest = c.rest[size:]
	return part
}

func (c *cutter) sized16(what string) []byte {
	b := c.take(what+" size", 2)
	if c.err != nil {
		return nil
	}
	return c.take(what, uint32(binary.LittleEndian.Uint16(b)))
}

func (c *cutter) sized32(what string) []byte {
	b := c.take(what+" size", 4)
	if c.err != nil {
		return nil
	}
	return c.take(what, binary.LittleEndian.Uint32(b))
}

func (c *cutter) certification(kind uint16) []byte {
	b := c.take("certification data type", 2)
	if c.err != nil {
		return nil
	}
	if got := binary.LittleEndian.Uint16(b); got != kind {
		c.err = fmt.Errorf("certification data type %d, want %d", got, kind)
		return nil
	}
	return c.sized32("certification data")
}

func (c *cutter) end(what string) error {
	if c.err == nil && len(c.rest) != 0 {
		c.err = fmt.Errorf("%s: %d bytes left over", what, len(c.rest))
	}
	return c.err
}
