// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// maxBundle bounds a sigstore bundle: a statement, a certificate, an entry with its proof, each in base64.
	maxBundle = 512 << 10
	// maxLogEntries bounds the entries of a bundle.
	maxLogEntries = 8

	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://sigstore.dev/cosign/sign/v1"
	inTotoType    = "application/vnd.in-toto+json"
)

// bundleJSON is a sigstore bundle 0.3 (sigstore protobuf-specs, sigstore_bundle.proto) in protobuf's JSON, as signers
// write it. What is not looked at is named, so that a member that nobody knows is an error.
type bundleJSON struct {
	MediaType string `json:"mediaType"`
	Material  *struct {
		PublicKey   jsontext.Value `json:"publicKey"` // a hint, of which nothing follows
		Certificate *struct {
			Raw []byte `json:"rawBytes"`
		} `json:"certificate"`
		Entries    []entryJSON    `json:"tlogEntries"`
		Timestamps jsontext.Value `json:"timestampVerificationData"` // no authority for them can stand in a policy
	} `json:"verificationMaterial"`
	Envelope *struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig   []byte `json:"sig"`
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
	Message jsontext.Value `json:"messageSignature"`
}

// entryJSON is TransparencyLogEntry (sigstore_rekor.proto). Protobuf writes its integers as strings and leaves zero out.
type entryJSON struct {
	Index string `json:"logIndex"`
	LogID struct {
		Key []byte `json:"keyId"`
	} `json:"logId"`
	Kind    jsontext.Value `json:"kindVersion"` // the body says it, under the log's signature
	Time    string         `json:"integratedTime"`
	Promise struct {
		SET []byte `json:"signedEntryTimestamp"`
	} `json:"inclusionPromise"`
	Proof jsontext.Value `json:"inclusionProof"` // is over the body and not over the time
	Body  []byte         `json:"canonicalizedBody"`
}

// parseBundle takes a bundle apart; nothing of it is verified.
func parseBundle(raw []byte) (*attached, error) {
	if len(raw) > maxBundle {
		return nil, fmt.Errorf("bundle of %d bytes, at most %d", len(raw), maxBundle)
	}
	var doc bundleJSON
	if err := unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	switch {
	case doc.MediaType != bundleType:
		return nil, fmt.Errorf("bundle of type %.100q, want %s", doc.MediaType, bundleType)
	case doc.Message != nil:
		return nil, errors.New("bundle of a message signature, want a DSSE envelope")
	case doc.Envelope == nil || doc.Material == nil:
		return nil, errors.New("bundle without an envelope or material to verify it")
	case doc.Envelope.PayloadType != inTotoType:
		return nil, fmt.Errorf("bundle with a payload of type %.100q, want %s", doc.Envelope.PayloadType, inTotoType)
	case len(doc.Envelope.Payload) > maxPayload:
		return nil, fmt.Errorf("payload of %d bytes, at most %d", len(doc.Envelope.Payload), maxPayload)
	case len(doc.Envelope.Signatures) != 1:
		return nil, fmt.Errorf("bundle with %d signatures, want 1", len(doc.Envelope.Signatures))
	case len(doc.Material.Entries) > maxLogEntries:
		return nil, fmt.Errorf("bundle with %d log entries, at most %d", len(doc.Material.Entries), maxLogEntries)
	}
	a := &attached{
		statement: true,
		payload:   doc.Envelope.Payload,
		message:   preAuthentication(doc.Envelope.PayloadType, doc.Envelope.Payload),
		signature: doc.Envelope.Signatures[0].Sig,
	}
	if c := doc.Material.Certificate; c != nil {
		var err error
		if a.certificate, err = parseLeaf(c.Raw); err != nil {
			return nil, err
		}
	}
	for i := range doc.Material.Entries {
		e, err := doc.Material.Entries[i].read()
		if err != nil {
			return nil, fmt.Errorf("log entry %d: %w", i, err)
		}
		a.entries = append(a.entries, e)
	}
	return a, nil
}

func parseLeaf(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("certificate of %d bytes, at most %d", len(der), maxCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing certificate: %w", err)
	}
	return c, nil
}

func (e *entryJSON) read() (*logEntry, error) {
	index, err := protoInteger(e.Index)
	if err != nil {
		return nil, fmt.Errorf("logIndex: %w", err)
	}
	at, err := protoInteger(e.Time)
	if err != nil {
		return nil, fmt.Errorf("integratedTime: %w", err)
	}
	return &logEntry{body: e.Body, time: at, index: index, logID: hex.EncodeToString(e.LogID.Key), set: e.Promise.SET}, nil
}

// protoInteger reads a decimal in its one spelling; absent is zero.
func protoInteger(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("got %.40q, want a decimal number", text)
	}
	return n, nil
}

// preAuthentication is what a DSSE signature is over (DSSE 1.0, protocol.md, PAE).
func preAuthentication(payloadType string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// parseStatement reads the in-toto statement that cosign 3 signs for an image strictly: one subject with one digest. A
// statement with another predicate says something else about the image, and not that it may run. cosign gives the
// subject no name; one that is an image's name is what the signature claims.
func parseStatement(raw []byte) (payload, error) {
	var doc struct {
		Type      string         `json:"_type"`
		Predicate string         `json:"predicateType"`
		Content   jsontext.Value `json:"predicate"` // empty, or the signer's: no part of the decision
		Subject   []struct {
			Name        string            `json:"name"`
			URI         string            `json:"uri"`
			Digest      map[string]string `json:"digest"`
			Annotations jsontext.Value    `json:"annotations"` // the signer's, too
		} `json:"subject"`
	}
	if len(raw) > maxPayload {
		return payload{}, fmt.Errorf("payload of %d bytes, at most %d", len(raw), maxPayload)
	}
	if err := unmarshal(raw, &doc); err != nil {
		return payload{}, err
	}
	switch {
	case doc.Type != statementType:
		return payload{}, fmt.Errorf("_type is %.100q, want %s", doc.Type, statementType)
	case doc.Predicate != predicateType:
		return payload{}, fmt.Errorf("predicateType is %.100q, want %s", doc.Predicate, predicateType)
	case len(doc.Subject) != 1 || len(doc.Subject[0].Digest) != 1:
		return payload{}, errors.New("want one subject with one digest")
	}
	var p payload
	for algorithm, value := range doc.Subject[0].Digest {
		digest, err := v1.NewHash(algorithm + ":" + value)
		if err != nil {
			return payload{}, fmt.Errorf("subject's digest: %w", err)
		}
		p.digest = digest
	}
	if name := doc.Subject[0].Name; name != "" {
		if signed, err := parseReference(name); err == nil {
			p.signed = signed
		}
	}
	return p, nil
}
