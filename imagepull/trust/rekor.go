// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PUBLIC KEY"

	// maxInteger bounds the numbers of an entry: beyond it, canonical JSON (RFC 8785) has no digits of its own.
	maxInteger = 1<<53 - 1
	// maxEntryBody bounds an entry's body, which holds a hash, a signature and a certificate.
	maxEntryBody = 64 << 10
)

// logEntry is an entry of a Rekor log with the log's signature over it, as received.
type logEntry struct {
	body  []byte // canonical JSON
	time  int64  // when it was logged, seconds since 1970
	index int64
	logID string // hex SHA-256 of the log's key
	set   []byte // signedEntryTimestamp
}

// parseRekorBundle reads the annotation that cosign 2 puts beside a signature.
func parseRekorBundle(raw []byte) (*logEntry, error) {
	var doc struct {
		SET     []byte `json:"SignedEntryTimestamp"`
		Payload struct {
			Body  []byte `json:"body"`
			Time  int64  `json:"integratedTime"`
			Index *int64 `json:"logIndex"`
			LogID string `json:"logID"`
		} `json:"Payload"`
	}
	if len(raw) > 2*maxEntryBody {
		return nil, fmt.Errorf("log entry of %d bytes, at most %d", len(raw), 2*maxEntryBody)
	}
	if err := unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("log entry: %w", err)
	}
	p := doc.Payload
	if p.Index == nil {
		return nil, errors.New("log entry without an index")
	}
	return &logEntry{body: p.Body, time: p.Time, index: *p.Index, logID: p.LogID, set: doc.SET}, nil
}

// logged returns the time at which one of the logs has taken up the entry, by its signature over body, time, index and log.
func (e *logEntry) logged(logs []publicKey) (time.Time, error) {
	switch {
	case len(e.set) == 0:
		return time.Time{}, errors.New("log entry without a signed timestamp")
	case e.time <= 0 || e.time > maxInteger || e.index < 0 || e.index > maxInteger:
		return time.Time{}, fmt.Errorf("log entry of time %d and index %d", e.time, e.index)
	case len(e.body) == 0 || len(e.body) > maxEntryBody:
		return time.Time{}, fmt.Errorf("log entry of %d bytes, want 1 to %d", len(e.body), maxEntryBody)
	}
	for _, log := range logs {
		if log.id != "SHA256:"+e.logID {
			continue
		}
		// The members in the order of RFC 8785; none of the texts has a character to escape.
		signed := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%s","logIndex":%d}`,
			base64.StdEncoding.EncodeToString(e.body), e.time, e.logID, e.index)
		if !log.verify([]byte(signed), e.set) {
			return time.Time{}, errors.New("log entry is not signed by its log")
		}
		return time.Unix(e.time, 0), nil
	}
	return time.Time{}, errors.New("log entry of a log that is not accepted")
}

// about says whether the entry is for this very signature, by the key or certificate in der, over this payload.
func (e *logEntry) about(a *attached, blockType string, der []byte) error {
	var head struct {
		Version string         `json:"apiVersion"`
		Kind    string         `json:"kind"`
		Spec    jsontext.Value `json:"spec"`
	}
	if err := unmarshal(e.body, &head); err != nil {
		return fmt.Errorf("log entry's body: %w", err)
	}
	want := "hashedrekord"
	read := readHashedRekord
	if a.statement {
		want, read = "dsse", readDSSERecord
	}
	if head.Kind != want || head.Version != "0.0.1" {
		return fmt.Errorf("log entry of kind %.40q %.20q, want %s 0.0.1", head.Kind, head.Version, want)
	}
	r, err := read(head.Spec)
	if err != nil {
		return fmt.Errorf("log entry's body: %w", err)
	}
	block, rest := pem.Decode(r.signer)
	switch {
	case !r.hash.matches(a.payload):
		return errors.New("log entry of another payload")
	case !bytes.Equal(r.signature, a.signature):
		return errors.New("log entry of another signature")
	case block == nil || len(bytes.TrimSpace(rest)) > 0 || block.Type != blockType || !bytes.Equal(block.Bytes, der):
		return errors.New("log entry of another signer")
	}
	return nil
}

// record is what an entry's body says.
type record struct {
	hash      recordHash
	signature []byte
	signer    []byte // PEM
}

type recordHash struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"value"` // hex
}

func (h recordHash) matches(payload []byte) bool {
	var sum []byte
	switch h.Algorithm {
	case "sha256":
		s := sha256.Sum256(payload)
		sum = s[:]
	case "sha384":
		s := sha512.Sum384(payload)
		sum = s[:]
	case "sha512":
		s := sha512.Sum512(payload)
		sum = s[:]
	default:
		return false
	}
	return h.Value == hex.EncodeToString(sum)
}

// readHashedRekord reads the spec of a hashedrekord 0.0.1, which cosign logs for a simple signing payload.
func readHashedRekord(raw jsontext.Value) (record, error) {
	var spec struct {
		Data struct {
			Hash recordHash `json:"hash"`
		} `json:"data"`
		Signature struct {
			Content []byte `json:"content"`
			Key     struct {
				Content []byte `json:"content"`
			} `json:"publicKey"`
		} `json:"signature"`
	}
	err := unmarshal(raw, &spec)
	return record{spec.Data.Hash, spec.Signature.Content, spec.Signature.Key.Content}, err
}

// readDSSERecord reads the spec of a dsse 0.0.1. The hash of the envelope is over a spelling of it that is not kept; the
// payload, the one signature and its key are all of the envelope.
func readDSSERecord(raw jsontext.Value) (record, error) {
	var spec struct {
		Envelope   recordHash `json:"envelopeHash"`
		Payload    recordHash `json:"payloadHash"`
		Signatures []struct {
			Signature []byte `json:"signature"`
			Verifier  []byte `json:"verifier"`
		} `json:"signatures"`
	}
	if err := unmarshal(raw, &spec); err != nil {
		return record{}, err
	}
	if len(spec.Signatures) != 1 {
		return record{}, fmt.Errorf("%d signatures, want 1", len(spec.Signatures))
	}
	return record{spec.Payload, spec.Signatures[0].Signature, spec.Signatures[0].Verifier}, nil
}
