// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// maxTPMKeySize holds the SubjectPublicKeyInfo of RSA-4096.
const maxTPMKeySize = 1 << 10

// TPMEvidence is a quote by a TPM 2.0 over all of its SHA-256 registers.
type TPMEvidence struct {
	Message   []byte // TPMS_ATTEST, the signed bytes
	Signature []byte // TPMT_SIGNATURE over them
	Registers TPMRegisterValues
	// AttestationKey is the DER SubjectPublicKeyInfo of an RSA key. Evidence that brings
	// its own key proves nothing until somebody else vouches for that key.
	AttestationKey []byte
	// EventLog is the firmware's log in TCG's crypto-agile form; nil when there is none.
	EventLog []byte
}

// Encode returns the JSON evidence that Trustee's tpm verifier reads. The member
// cc_eventlog is there only with a log; Trustee ignores members that it does not know.
func (e TPMEvidence) Encode() (json.RawMessage, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("encoding TPM evidence: %w", err)
	}
	out := fmt.Appendf(nil, `{"tpm_quote":{"signature":"%s","message":"%s","pcrs":[`, encodeB64Std(e.Signature), encodeB64Std(e.Message))
	for i := range e.Registers {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `"%x"`, e.Registers[i])
	}
	out = fmt.Appendf(out, `]},"ak_public":"%s"`, encodeB64Std(e.AttestationKey))
	if e.EventLog != nil {
		out = fmt.Appendf(out, `,"cc_eventlog":"%s"`, encodeB64Std(e.EventLog))
	}
	return append(out, '}'), nil
}

func (e TPMEvidence) check() error {
	if _, err := ParseTPMQuote(e.Message); err != nil {
		return err
	}
	if _, err := ParseTPMSignature(e.Signature); err != nil {
		return err
	}
	if _, err := e.PublicKey(); err != nil {
		return err
	}
	if e.EventLog != nil && len(e.EventLog) == 0 {
		return errors.New("event log is empty")
	}
	if len(e.EventLog) > MaxEventLogSize {
		return fmt.Errorf("event log is %d bytes, at most %d allowed", len(e.EventLog), MaxEventLogSize)
	}
	return nil
}

// PublicKey returns the attestation key: RSA of 2048 to 4096 bits with exponent 65537,
// in the one DER form that it has.
func (e TPMEvidence) PublicKey() (*rsa.PublicKey, error) { return ParseTPMKey(e.AttestationKey) }

// ParseTPMKey reads what AttestationKey holds.
func ParseTPMKey(der []byte) (*rsa.PublicKey, error) {
	if len(der) > maxTPMKeySize {
		return nil, fmt.Errorf("attestation key: %d bytes, at most %d allowed", len(der), maxTPMKeySize)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, errors.New("attestation key: not the SubjectPublicKeyInfo of an RSA key")
	}
	if bits := key.N.BitLen(); bits < 2048 || bits > 4096 || key.E != 65537 {
		return nil, fmt.Errorf("attestation key: RSA of %d bits with exponent %d, want 2048 to 4096 with 65537", bits, key.E)
	}
	// One key must have one digest, whichever form its bytes came in.
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("attestation key: not in canonical DER")
	}
	return key, nil
}

// KeyDigest names an attestation key in registrations, tokens and logs: "sha256:" and
// the lower-case hex of SHA-256 over its DER SubjectPublicKeyInfo.
func KeyDigest(der []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(der)) }

// ParseTPMEvidence reads it back. All parts are well-formed afterwards; no signature is
// verified, and the event log is not looked into.
func ParseTPMEvidence(raw []byte) (TPMEvidence, error) {
	r := readObject("TPM evidence", raw, MaxAttestationSize)
	quote := r.object("tpm_quote")
	var e TPMEvidence
	e.Signature, e.Message = quote.base64("signature"), quote.base64("message")
	e.Registers = quote.registers("pcrs")
	r.wrap("tpm_quote", quote.done())
	e.AttestationKey = r.base64("ak_public")
	if log, ok := r.takeOptional("cc_eventlog"); ok {
		e.EventLog = r.base64Of("cc_eventlog", log)
	}
	if err := r.done(); err != nil {
		return TPMEvidence{}, err
	}
	if err := e.check(); err != nil {
		return TPMEvidence{}, fmt.Errorf("parsing TPM evidence: %w", err)
	}
	return e, nil
}

// base64 takes a member in padded standard base64.
func (r *reader) base64(member string) []byte {
	v := r.take(member)
	if r.err != nil {
		return nil
	}
	return r.base64Of(member, v)
}

func (r *reader) base64Of(member string, v jsontext.Value) []byte {
	text, err := textOf(v)
	var b []byte
	if err == nil {
		b, err = decodeB64Std(text)
	}
	if err != nil {
		r.fail(member, "%v", err)
	}
	return b
}

// registers takes an array of exactly TPMRegisters values in lower-case hex.
func (r *reader) registers(member string) (out TPMRegisterValues) {
	v := r.take(member)
	if r.err != nil {
		return out
	}
	values, err := arrayOf(v, TPMRegisters)
	if err == nil && len(values) != TPMRegisters {
		err = fmt.Errorf("%d registers, want %d", len(values), TPMRegisters)
	}
	for i := 0; err == nil && i < TPMRegisters; i++ {
		var text string
		if text, err = textOf(values[i]); err != nil {
			break
		}
		b, bad := hex.DecodeString(text)
		if bad != nil || len(b) != sha256.Size || hex.EncodeToString(b) != text {
			err = fmt.Errorf("register %d is not %d bytes in lower-case hex", i, sha256.Size)
			break
		}
		copy(out[i][:], b)
	}
	if err != nil {
		r.fail(member, "%v", err)
	}
	return out
}

// arrayOf splits a JSON array of at most limit elements.
func arrayOf(v jsontext.Value, limit int) ([]jsontext.Value, error) {
	if v.Kind() != '[' {
		return nil, errors.New("not an array")
	}
	dec := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := dec.ReadToken(); err != nil {
		return nil, errors.New(syntaxReason(err))
	}
	var out []jsontext.Value
	for dec.PeekKind() != ']' {
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d elements", limit)
		}
		element, err := dec.ReadValue()
		if err != nil {
			return nil, errors.New(syntaxReason(err))
		}
		out = append(out, element.Clone())
	}
	return out, nil
}
