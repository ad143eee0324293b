// SPDX-License-Identifier: Apache-2.0

package tdxtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// FMSPC is the processor family of every platform here, in hex.
const FMSPC = "010203040506"

// QESigner is the MRSIGNER of Intel's quoting enclave for TDX, in hex.
const QESigner = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"

// Platform is one machine and the certificates above it. Fields may be replaced before
// Quote and Publish: that is how a test makes a bad one.
type Platform struct {
	RootKey, CAKey, PCKKey, AttestationKey, SignerKey *ecdsa.PrivateKey
	// Root signed CA and Signer, CA signed PCK; Signer signs Intel's tables.
	Root, CA, PCK, Signer *x509.Certificate
	// QE is the quoting enclave's report, 384 bytes, bound to AttestationKey.
	QE []byte
	// Status is the TCB level in the published table, UpToDate at first.
	Status string
	// Until is when the published revocation lists end.
	Until time.Time
	// Revoked is on every published list.
	Revoked []*x509.Certificate
}

// New makes a platform with fresh keys, certificates valid for two hours and a quoting
// enclave of version 4.
func New() (*Platform, error) {
	p := &Platform{Status: "UpToDate", Until: time.Now().Add(time.Hour), QE: make([]byte, 384)}
	for _, k := range []**ecdsa.PrivateKey{&p.RootKey, &p.CAKey, &p.PCKKey, &p.AttestationKey, &p.SignerKey} {
		var err error
		if *k, err = NewKey(); err != nil {
			return nil, err
		}
	}
	extension, err := sgxExtension()
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		to     **x509.Certificate
		name   string
		isCA   bool
		key    *ecdsa.PrivateKey
		parent **x509.Certificate
		by     *ecdsa.PrivateKey
		ext    []pkix.Extension
	}{
		{&p.Root, "test root", true, p.RootKey, nil, p.RootKey, nil},
		{&p.CA, "test CA", true, p.CAKey, &p.Root, p.RootKey, nil},
		{&p.PCK, "test PCK", false, p.PCKKey, &p.CA, p.CAKey, []pkix.Extension{extension}},
		{&p.Signer, "test TCB signing", false, p.SignerKey, &p.Root, p.RootKey, nil},
	} {
		var parent *x509.Certificate
		if c.parent != nil {
			parent = *c.parent
		}
		if *c.to, err = Issue(c.name, c.isCA, c.key, parent, c.by, c.ext...); err != nil {
			return nil, err
		}
	}
	signer, err := hex.DecodeString(QESigner)
	if err != nil {
		return nil, err
	}
	copy(p.QE[128:], signer)
	p.QE[256], p.QE[258] = 2, 4 // ISVPRODID, ISVSVN
	key, err := p.attestationKey()
	if err != nil {
		return nil, err
	}
	binding := sha256.Sum256(append(key, qeAuthData...))
	copy(p.QE[320:], binding[:])
	return p, nil
}

// qeAuthData is what the quoting enclave binds beside the attestation key.
var qeAuthData = []byte{9, 9}

// NewKey makes a P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// Issue makes a certificate for key, signed by by in parent's name; parent nil is a root.
func Issue(name string, isCA bool, key *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey, ext ...pkix.Extension) (*x509.Certificate, error) {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2 * time.Hour), ExtraExtensions: ext, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if isCA {
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		return nil, fmt.Errorf("issuing %q: %w", name, err)
	}
	return x509.ParseCertificate(der)
}

// sgxExtension says which platform a PCK is for, Intel SGX PCK Certificate and CRL
// Profile Specification, section 1.3.5: 16 components and the PCESVN, all 5, PCEID 0.
func sgxExtension() (pkix.Extension, error) {
	sgx := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	type item struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	at := func(arcs ...int) asn1.ObjectIdentifier { return slices.Concat(sgx, arcs) }
	var tcb []item
	for i := range 17 {
		tcb = append(tcb, item{at(2, i+1), 5})
	}
	levels, err := asn1.Marshal(tcb)
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := asn1.Marshal([]item{
		{at(2), asn1.RawValue{FullBytes: levels}}, {at(3), []byte{0, 0}}, {at(4), []byte{1, 2, 3, 4, 5, 6}},
	})
	return pkix.Extension{Id: sgx, Value: value}, err
}

func (p *Platform) attestationKey() ([]byte, error) {
	raw, err := p.AttestationKey.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return raw[1:], nil
}

// Quote signs a TD report body of 584 bytes (version 4) or 648 (version 5).
func (p *Platform) Quote(version uint16, body []byte) ([]byte, error) {
	le := binary.LittleEndian
	signed := le.AppendUint16(nil, version)
	signed = append(signed, 2, 0, 0x81, 0, 0, 0)
	signed = append(signed, make([]byte, 40)...)
	if version == 5 {
		signed = le.AppendUint32(le.AppendUint16(signed, 3), uint32(len(body)))
	}
	signed = append(signed, body...)
	chain := slices.Concat(PEM(p.PCK), PEM(p.CA), PEM(p.Root))
	key, errKey := p.attestationKey()
	qeSignature, errQE := Sign(p.PCKKey, p.QE)
	signature, errQuote := Sign(p.AttestationKey, signed)
	if err := errors.Join(errKey, errQE, errQuote); err != nil {
		return nil, err
	}
	qe := slices.Concat(p.QE, qeSignature, []byte{byte(len(qeAuthData)), 0}, qeAuthData, []byte{5, 0}, le.AppendUint32(nil, uint32(len(chain))), chain)
	data := slices.Concat(signature, key, []byte{6, 0}, le.AppendUint32(nil, uint32(len(qe))), qe)
	return slices.Concat(signed, le.AppendUint32(nil, uint32(len(data))), data), nil
}

// Sign returns r and s, 32 bytes each, over SHA-256 of message.
func Sign(k *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, nil
}

// PEM encodes certificates one after another.
func PEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return out.Bytes()
}
