// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	_ "embed" // Intel's root certificate
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

//go:embed intelroot.pem
var intelRootPEM []byte

// sgxOID is the extension of PCK certificates that says which platform they are for,
// Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5.
var sgxOID = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// Arcs below sgxOID.
const (
	arcTCB    = 2
	arcPCEID  = 3
	arcFMSPC  = 4
	arcPCESVN = 17 // below arcTCB, where 1 to 16 are the components
)

const svnComponents = 16

// pck is the certificate of the key that vouches for a quoting enclave.
type pck struct {
	leaf, ca, root *x509.Certificate
	test           bool // root is a test root
	fmspc, pceID   []byte
	components     [svnComponents]int
	pceSVN         int
}

// parsePCK wants the leaf and its CA; a root that comes along must be the one that is
// trusted anyway.
func parsePCK(text []byte, intel, test *x509.Certificate) (*pck, error) {
	certs, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	if len(certs) != 2 && len(certs) != 3 {
		return nil, fmt.Errorf("%d certificates, want leaf, CA and root", len(certs))
	}
	p := &pck{leaf: certs[0], ca: certs[1], root: intel}
	err = signedBy(p.ca, intel)
	if err != nil && test != nil && signedBy(p.ca, test) == nil {
		p.root, p.test, err = test, true, nil
	}
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	if len(certs) == 3 && !certs[2].Equal(p.root) {
		return nil, errors.New("the root that came along is another one")
	}
	if err := signedBy(p.leaf, p.ca); err != nil {
		return nil, fmt.Errorf("leaf: %w", err)
	}
	return p, p.readExtension()
}

type sgxItem struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

func (p *pck) readExtension() error {
	for _, ext := range p.leaf.Extensions {
		if !ext.Id.Equal(sgxOID) {
			continue
		}
		items, err := sgxItems(ext.Value, sgxOID)
		if err != nil {
			return err
		}
		p.fmspc, p.pceID = items[arcFMSPC].Bytes, items[arcPCEID].Bytes
		tcb, err := sgxItems(items[arcTCB].FullBytes, append(sgxOID[:len(sgxOID):len(sgxOID)], arcTCB))
		if err != nil {
			return err
		}
		if len(p.fmspc) != 6 || len(p.pceID) != 2 {
			return errors.New("PCK certificate lacks FMSPC or PCEID")
		}
		for i := range p.components {
			if _, err := asn1.Unmarshal(tcb[i+1].FullBytes, &p.components[i]); err != nil {
				return fmt.Errorf("PCK certificate: component %d: %w", i+1, err)
			}
		}
		if _, err := asn1.Unmarshal(tcb[arcPCESVN].FullBytes, &p.pceSVN); err != nil {
			return fmt.Errorf("PCK certificate: PCESVN: %w", err)
		}
		return nil
	}
	return errors.New("PCK certificate lacks the SGX extension")
}

// sgxItems reads a sequence of pairs by the last arc of their names.
func sgxItems(der []byte, parent asn1.ObjectIdentifier) (map[int]asn1.RawValue, error) {
	var list []sgxItem
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
		return nil, errors.New("PCK certificate: malformed SGX extension")
	}
	items := make(map[int]asn1.RawValue)
	for _, item := range list {
		if len(item.ID) != len(parent)+1 || !item.ID[:len(parent)].Equal(parent) {
			return nil, fmt.Errorf("PCK certificate: SGX extension has %v", item.ID)
		}
		arc := item.ID[len(parent)]
		if _, twice := items[arc]; twice {
			return nil, fmt.Errorf("PCK certificate: %v occurs twice", item.ID)
		}
		items[arc] = item.Value
	}
	return items, nil
}

// p256 builds a key from x and y, big-endian; nil for a point that is not on the curve.
func p256(xy []byte) *ecdsa.PublicKey {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), bytes.Join([][]byte{{4}, xy}, nil))
	if err != nil {
		return nil
	}
	return key
}

// verifyP256 checks r and s, 32 bytes each, big-endian, over SHA-256 of message.
func verifyP256(key any, message, signature []byte) bool {
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public == nil || public.Curve != elliptic.P256() || len(signature) != 64 {
		return false
	}
	sum := sha256.Sum256(message)
	return ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}
