// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

const (
	mintIssuer = "https://idp.example/realm"
	mintEmail  = "ci@example.com"
)

// signedAt is when the test's signers sign: any clock that runs now calls their certificates expired.
func signedAt() time.Time { return time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC) }

// ca is a certificate authority as Fulcio is one.
type ca struct {
	t    testing.TB
	key  signer
	cert *x509.Certificate
}

func newCA(t testing.TB, parent *ca) *ca {
	t.Helper()
	c := &ca{t: t, key: newECDSA(t, elliptic.P256(), crypto.SHA256)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("ca %p", c)},
		NotBefore: signedAt().AddDate(-1, 0, 0), NotAfter: signedAt().AddDate(9, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent = &ca{t: t, key: c.key, cert: template}
	}
	c.cert = parent.sign(template, c.key)
	return c
}

func (c *ca) sign(template *x509.Certificate, key signer) *x509.Certificate {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.key.Public(), c.key.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func pemOf(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.Raw}))
	}
	return b.String()
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// utf8Extension is Fulcio's newer form of the identity provider.
func utf8Extension(t testing.TB, issuer string) pkix.Extension {
	t.Helper()
	value, err := asn1.MarshalWithParams(issuer, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value}
}

// plainExtension is the older form.
func plainExtension(issuer string) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}
}

// wireEntry is what a log signs, for tests to spoil.
type wireEntry struct {
	Body  map[string]any
	Time  int64
	Index int64
	LogID string
	SET   []byte
	raw   []byte // Body as signed
}

// mint makes signatures; its functions spoil what they are given just before it is used.
type mint struct {
	t         testing.TB
	root      *ca
	issuer    *ca // of the leaf: root, or one below it
	log       signer
	key       signer
	certified *signer // has the certificate, in place of key
	unlogged  bool    // the entry is left out
	keyed     bool    // by key alone, without a certificate
	dsse      bool    // a bundle, not annotations
	payload   string
	leaf      func(*x509.Certificate)
	entry     func(*wireEntry) // before the log signs
	logged    func(*wireEntry) // after it
	signature func([]byte) []byte
	written   func(string) string // the bundle, or the log's annotation
	attached  func(*Signature)
}

func newMint(t testing.TB, dsse bool) *mint {
	root := newCA(t, nil)
	m := &mint{t: t, dsse: dsse, root: root, issuer: root, log: newECDSA(t, elliptic.P256(), crypto.SHA256),
		key: newECDSA(t, elliptic.P256(), crypto.SHA256)}
	return m
}

// statementFor is what cosign 3 signs.
func statementFor(digest string) string {
	return fmt.Sprintf(`{"_type":%q,"subject":[{"digest":{"sha256":%q},"annotations":{}}],"predicateType":%q,"predicate":{}}`,
		statementType, strings.TrimPrefix(digest, "sha256:"), predicateType)
}

func (m *mint) certificate() *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: signedAt().Add(-time.Minute), NotAfter: signedAt().Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		EmailAddresses:  []string{mintEmail},
		ExtraExtensions: []pkix.Extension{plainExtension(mintIssuer), utf8Extension(m.t, mintIssuer)},
	}
	if m.leaf != nil {
		m.leaf(template)
	}
	if m.certified != nil {
		return m.issuer.sign(template, *m.certified)
	}
	return m.issuer.sign(template, m.key)
}

// body is what the log holds of a signature.
func (m *mint) body(signature []byte, signerPEM string) map[string]any {
	hash := map[string]any{"algorithm": "sha256", "value": fmt.Sprintf("%x", sha256.Sum256([]byte(m.payload)))}
	if m.dsse {
		return map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": hash, "payloadHash": hash,
			"signatures": []any{map[string]any{"signature": signature, "verifier": []byte(signerPEM)}},
		}}
	}
	return map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": hash},
		"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": []byte(signerPEM)}},
	}}
}

// enter logs a signature.
func (m *mint) enter(signature []byte, signerPEM string) *wireEntry {
	der, _ := pem.Decode([]byte(m.log.pem()))
	e := &wireEntry{Body: m.body(signature, signerPEM), Time: signedAt().Unix(), Index: 7, LogID: fmt.Sprintf("%x", sha256.Sum256(der.Bytes))}
	if m.entry != nil {
		m.entry(e)
	}
	e.raw = m.json(e.Body)
	// encoding/json writes the members of a map in the order of their names, as canonical JSON does.
	signed := m.json(map[string]any{"body": e.raw, "integratedTime": e.Time, "logIndex": e.Index, "logID": e.LogID})
	set, err := base64.StdEncoding.DecodeString(m.log.sign(string(signed)).Base64Signature)
	if err != nil {
		m.t.Fatal(err)
	}
	e.SET = set
	if m.logged != nil {
		m.logged(e)
	}
	return e
}

func (m *mint) json(v any) []byte {
	m.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

// make signs and logs the payload.
func (m *mint) make() Signature {
	m.t.Helper()
	message := m.payload
	if m.dsse {
		message = fmt.Sprintf("DSSEv1 %d %s %d %s", len(inTotoType), inTotoType, len(m.payload), m.payload)
	}
	signature, err := base64.StdEncoding.DecodeString(m.key.sign(message).Base64Signature)
	if err != nil {
		m.t.Fatal(err)
	}
	cert, signerPEM := m.certificate(), m.key.pem()
	if !m.keyed {
		signerPEM = pemOf(cert)
	}
	e := m.enter(signature, signerPEM)
	if m.signature != nil {
		signature = m.signature(signature)
	}
	var s Signature
	if m.dsse {
		s.Bundle = []byte(m.write(m.bundle(signature, cert, e)))
	} else {
		s = Signature{Payload: []byte(m.payload), Base64Signature: base64.StdEncoding.EncodeToString(signature)}
		s.RekorBundle = m.write(map[string]any{"SignedEntryTimestamp": e.SET, "Payload": map[string]any{
			"body": e.raw, "integratedTime": e.Time, "logIndex": e.Index, "logID": e.LogID}})
		if !m.keyed {
			s.Certificate, s.Chain = pemOf(cert), pemOf(m.issuer.cert, m.root.cert)
		}
	}
	if m.unlogged {
		s.RekorBundle = ""
	}
	if m.attached != nil {
		m.attached(&s)
	}
	return s
}

func (m *mint) write(v any) string {
	text := string(m.json(v))
	if m.written != nil {
		changed := m.written(text)
		if changed == text {
			m.t.Fatalf("the case spoils nothing of %s", text)
		}
		return changed
	}
	return text
}

func (m *mint) bundle(signature []byte, cert *x509.Certificate, e *wireEntry) map[string]any {
	var id []byte
	if _, err := fmt.Sscanf(e.LogID, "%x", &id); err != nil {
		m.t.Fatal(err)
	}
	material := map[string]any{
		"tlogEntries": []any{map[string]any{
			"logIndex": fmt.Sprint(e.Index), "logId": map[string]any{"keyId": id}, "integratedTime": fmt.Sprint(e.Time),
			"kindVersion":      map[string]any{"kind": "dsse", "version": "0.0.1"},
			"inclusionPromise": map[string]any{"signedEntryTimestamp": e.SET}, "canonicalizedBody": e.raw,
			"inclusionProof": map[string]any{"logIndex": "3", "treeSize": "9", "hashes": []any{}, "checkpoint": map[string]any{"envelope": "x"}},
		}},
		"timestampVerificationData": map[string]any{},
	}
	if m.unlogged {
		delete(material, "tlogEntries")
	}
	if m.keyed {
		material["publicKey"] = map[string]any{"hint": "x"}
	} else {
		material["certificate"] = map[string]any{"rawBytes": cert.Raw}
	}
	return map[string]any{"mediaType": bundleType, "verificationMaterial": material, "dsseEnvelope": map[string]any{
		"payload": []byte(m.payload), "payloadType": inTotoType, "signatures": []any{map[string]any{"sig": signature, "keyid": ""}}}}
}

// keyless is a policy that wants the mint's certificates; identity is signedIdentity, "" for none.
func (m *mint) keyless(identity string) string {
	return fmt.Sprintf(`{'default':[{'type':'sigstoreSigned','fulcio':{'caData':'%s','oidcIssuer':'%s','subjectEmail':'%s'},'rekorPublicKeyData':'%s'%s}]}`,
		base64Of(pemOf(m.root.cert)), mintIssuer, mintEmail, m.log.base64(), identity)
}

// byKey is one that wants the mint's key and log.
func (m *mint) byKey(identity string) string {
	return fmt.Sprintf(`{'default':[{'type':'sigstoreSigned','keyData':'%s','rekorPublicKeyData':'%s'%s}]}`, m.key.base64(), m.log.base64(), identity)
}
