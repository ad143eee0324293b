// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// MaxAttestationSize is what Trustee takes as a request body by default.
	MaxAttestationSize = 2 << 20

	// MaxGuestReport bounds what a guest says of itself after a handshake, which no
	// protocol but keybroker's has.
	MaxGuestReport = 64 << 10
	// MaxInitDataSize bounds an initdata document; real ones are policy files and
	// certificates of at most some hundred kilobytes.
	MaxInitDataSize = 1 << 20

	// maxMembers of all objects in an attestation together; real ones have about a hundred.
	maxMembers = 4096

	// maxRuntimeDataWire allows a nonce of MaxNonceSize with every byte escaped.
	maxRuntimeDataWire = 6*MaxNonceSize + MaxJWKSize + 64
)

// initDataFormat is the only format that Trustee's built-in verifier takes.
const initDataFormat = "toml"

// Attestation is the body of POST /attest.
type Attestation struct {
	// InitData is the initdata document as delivered, every byte of it; nil for none.
	InitData []byte
	// RuntimeData also carries the additional evidence.
	RuntimeData RuntimeData
	// Evidence is the evidence of the primary TEE, a JSON object.
	Evidence json.RawMessage
}

// Encode returns the wire form. Runtime data goes out as the bytes that are hashed.
func (a Attestation) Encode() ([]byte, error) {
	if len(a.RuntimeData.wire) == 0 {
		return nil, errors.New("encoding attestation: no runtime data")
	}
	if !json.Valid(a.Evidence) {
		return nil, errors.New("encoding attestation: evidence is not JSON")
	}
	out := []byte(`{"init-data":`)
	var err error
	if a.InitData == nil {
		out = append(out, `null`...)
	} else {
		out = append(out, `{"format":"`+initDataFormat+`","body":`...)
		if out, err = appendText(out, string(a.InitData)); err != nil {
			return nil, fmt.Errorf("encoding attestation: initdata: %w", err)
		}
		out = append(out, '}')
	}
	out = append(out, `,"runtime-data":`...)
	out = append(out, a.RuntimeData.wire...)
	out = append(out, `,"tee-evidence":{"primary_evidence":`...)
	out = append(out, a.Evidence...)
	out = append(out, `,"additional_evidence":`...)
	if out, err = appendText(out, a.RuntimeData.additional); err != nil {
		return nil, fmt.Errorf("encoding attestation: additional evidence: %w", err)
	}
	out = append(out, "}}"...)
	if len(out) > MaxAttestationSize {
		return nil, fmt.Errorf("encoding attestation: %d bytes, at most %d allowed", len(out), MaxAttestationSize)
	}
	return out, nil
}

// ParseAttestation reads the body of POST /attest. Afterwards the runtime data is
// rebuilt in canonical form from a valid key; the evidence is one JSON object without
// duplicate names, not looked at further; nothing is verified.
func ParseAttestation(raw []byte) (Attestation, error) {
	if n := countMembers(raw); n > maxMembers {
		return Attestation{}, fmt.Errorf("parsing attestation: %d members, at most %d allowed", n, maxMembers)
	}
	r := readObject("attestation", raw, MaxAttestationSize)
	initData, hasInitData := r.takeOptional("init-data")
	runtimeData := r.take("runtime-data")
	teeEvidence := r.object("tee-evidence")
	primary := teeEvidence.take("primary_evidence")
	additional := teeEvidence.text("additional_evidence")
	r.wrap("tee-evidence", teeEvidence.done())
	if err := r.done(); err != nil {
		return Attestation{}, err
	}
	if primary.Kind() != '{' {
		return Attestation{}, errors.New(`parsing attestation: member "primary_evidence": not an object`)
	}
	a := Attestation{Evidence: json.RawMessage(primary)}
	var err error
	if hasInitData {
		if a.InitData, err = parseInitData(initData); err != nil {
			return Attestation{}, fmt.Errorf("parsing attestation: %w", err)
		}
	}
	if a.RuntimeData, err = parseRuntimeData(runtimeData, additional); err != nil {
		return Attestation{}, fmt.Errorf("parsing attestation: %w", err)
	}
	return a, nil
}

// countMembers counts the colons outside of strings, which in JSON is the members. It runs before a reader has to
// remember their names.
func countMembers(raw []byte) (n int) {
	inText := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case c == ':' && !inText:
			n++
		}
	}
	return n
}

// parseInitData returns the document verbatim: its digest is over these bytes.
func parseInitData(raw []byte) ([]byte, error) {
	r := readObject("init-data", raw, len(raw))
	format, body := r.text("format"), r.text("body")
	if err := r.done(); err != nil {
		return nil, err
	}
	if format != initDataFormat {
		return nil, fmt.Errorf("parsing init-data: unsupported format %s", quote(format))
	}
	if len(body) > MaxInitDataSize {
		return nil, fmt.Errorf("parsing init-data: %d bytes, at most %d allowed", len(body), MaxInitDataSize)
	}
	return []byte(body), nil
}
