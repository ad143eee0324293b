// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// azureVersion is that of the evidence which binds the hardware's report to the handshake
// too, by the claims' user-data.
const azureVersion = 2

// AzureEvidence is a quote of the vTPM that Azure's paravisor keeps, with the report of
// the hardware below it.
type AzureEvidence struct {
	// HCL is the report as it was read from the vTPM, without the zeros behind it.
	HCL []byte
	// Message is the TPMS_ATTEST, Signature the bare RSASSA signature over it.
	Message, Signature []byte
	Registers          TPMRegisterValues
	// VCEK is the DER certificate of the SNP chip; nil with TDX.
	VCEK []byte
	// Quote is the TD quote over the TDREPORT; nil with SNP.
	Quote []byte

	// Report is HCL parsed; Encode and ParseAzureEvidence set it.
	Report HCLReport
}

// Encode returns the JSON evidence of version 2 that Trustee's verifiers az-snp-vtpm and
// az-tdx-vtpm read.
func (e AzureEvidence) Encode() (json.RawMessage, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("encoding Azure evidence: %w", err)
	}
	out := fmt.Appendf(nil, `{"version":%d,"tpm_quote":{"signature":"%x","message":"%x","pcrs":[`, azureVersion, e.Signature, e.Message)
	for i := range e.Registers {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `"%x"`, e.Registers[i])
	}
	out = fmt.Appendf(out, `]},"hcl_report":"%s"`, base64.URLEncoding.EncodeToString(e.HCL))
	if e.Report.TEE == AzSNPvTPM {
		out = fmt.Appendf(out, `,"vcek":"%s"`, base64.URLEncoding.EncodeToString(e.VCEK))
	} else {
		out = fmt.Appendf(out, `,"td_quote":"%s"`, base64.URLEncoding.EncodeToString(e.Quote))
	}
	return append(out, '}'), nil
}

// check parses every part and wants the one certificate or quote that goes with the TEE.
func (e *AzureEvidence) check() (err error) {
	if e.Report, err = ParseHCLReport(e.HCL); err != nil {
		return err
	}
	if _, err := ParseTPMQuote(e.Message); err != nil {
		return err
	}
	if len(e.Signature) == 0 || len(e.Signature) > 512 {
		return fmt.Errorf("signature of %d bytes, want 1 to 512", len(e.Signature))
	}
	if e.Report.TEE == AzSNPvTPM {
		if len(e.VCEK) == 0 || len(e.VCEK) > MaxSNPCertSize || e.Quote != nil {
			return fmt.Errorf("VCEK of %d bytes, want 1 to %d, and no TD quote", len(e.VCEK), MaxSNPCertSize)
		}
		return nil
	}
	if len(e.Quote) == 0 || len(e.Quote) > MaxTDXQuoteSize || e.VCEK != nil {
		return fmt.Errorf("TD quote of %d bytes, want 1 to %d, and no VCEK", len(e.Quote), MaxTDXQuoteSize)
	}
	return nil
}

// PublicKey returns the key that the claims name.
func (e AzureEvidence) PublicKey() (*rsa.PublicKey, HCLClaims, error) {
	claims, err := e.Report.ReadClaims()
	if err != nil {
		return nil, HCLClaims{}, err
	}
	key, err := ParseTPMKey(claims.AttestationKey)
	return key, claims, err
}

// ParseAzureEvidence reads evidence of version 2 of tee, AzSNPvTPM or AzTDXvTPM. All
// parts are well-formed afterwards; nothing is verified. Older versions bind no hardware
// report to the handshake and are refused.
func ParseAzureEvidence(tee TEE, raw []byte) (AzureEvidence, error) {
	r := readObject("Azure evidence", raw, MaxAttestationSize)
	if version := r.uint("version", 32); r.err == nil && version != azureVersion {
		return AzureEvidence{}, fmt.Errorf("parsing Azure evidence: version %d, want %d", version, azureVersion)
	}
	quote := r.object("tpm_quote")
	var e AzureEvidence
	e.Signature, e.Message = quote.hex("signature"), quote.hex("message")
	e.Registers = quote.registers("pcrs")
	r.wrap("tpm_quote", quote.done())
	e.HCL = r.base64URL("hcl_report")
	switch tee {
	case AzSNPvTPM:
		e.VCEK = r.base64URL("vcek")
	case AzTDXvTPM:
		e.Quote = r.base64URL("td_quote")
	default:
		return AzureEvidence{}, fmt.Errorf("parsing Azure evidence: of TEE %s", tee)
	}
	if err := r.done(); err != nil {
		return AzureEvidence{}, err
	}
	if err := e.check(); err != nil {
		return AzureEvidence{}, fmt.Errorf("parsing Azure evidence: %w", err)
	}
	if e.Report.TEE != tee {
		return AzureEvidence{}, fmt.Errorf("parsing Azure evidence: the hardware report is of %s, want %s", e.Report.TEE, tee)
	}
	return e, nil
}

// hex takes a member in lower-case hex.
func (r *reader) hex(member string) []byte {
	text := r.text(member)
	if r.err != nil {
		return nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(b) != text {
		r.fail(member, "not lower-case hex")
	}
	return b
}

// base64URL takes a member in padded base64url.
func (r *reader) base64URL(member string) []byte {
	text := r.text(member)
	if r.err != nil {
		return nil
	}
	b, err := decodeB64(base64.URLEncoding, text)
	if err != nil {
		r.fail(member, "%v", err)
	}
	return b
}
