// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/evidence"
)

// tpmKeyHandle is where guest-components looks for the attestation key.
const tpmKeyHandle tpm2.TPMHandle = 0x81010002

// tpmKey is an attestation key inside the TPM: an RSA key that signs nothing but what
// the TPM made itself.
type tpmKey struct {
	at        tpm2.TPMHandle
	name      tpm2.TPM2BName
	spki      []byte
	transient bool // made by openKey, flushed by close
}

// openKey returns the key at tpmKeyHandle. Only where that handle is empty it makes a
// primary key of the endorsement hierarchy instead, which is the same each time until
// the TPM's maker changes its seed, so the owner can pin it as well.
func openKey(t transport.TPM) (*tpmKey, error) {
	resp, err := tpm2.ReadPublic{ObjectHandle: tpmKeyHandle}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return makeKey(t)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the attestation key at %#x: %w", uint32(tpmKeyHandle), err)
	}
	key := &tpmKey{at: tpmKeyHandle, name: resp.Name}
	if key.spki, err = keyInfo(resp.OutPublic); err != nil {
		return nil, fmt.Errorf("reading the attestation key at %#x: %w", uint32(tpmKeyHandle), err)
	}
	return key, nil
}

func makeKey(t transport.TPM) (*tpmKey, error) {
	resp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(keyTemplate())}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("making an attestation key: %w", err)
	}
	key := &tpmKey{at: resp.ObjectHandle, name: resp.Name, transient: true}
	if key.spki, err = keyInfo(resp.OutPublic); err != nil {
		return nil, errors.Join(fmt.Errorf("making an attestation key: %w", err), key.close(t))
	}
	return key, nil
}

// keyInfo returns the DER SubjectPublicKeyInfo of a key that is fit to attest.
func keyInfo(public tpm2.TPM2BPublic) ([]byte, error) {
	p, err := public.Contents()
	if err != nil {
		return nil, err
	}
	attributes := p.ObjectAttributes
	if p.Type != tpm2.TPMAlgRSA || !attributes.Restricted || !attributes.SignEncrypt || attributes.Decrypt || !attributes.FixedTPM {
		return nil, errors.New("not a restricted RSA signing key that stays in its TPM")
	}
	key, err := tpm2.Pub(*p)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	_, err = evidence.ParseTPMKey(der)
	return der, err
}

func (k *tpmKey) handle() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.at, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

func (k *tpmKey) close(t transport.TPM) error {
	if !k.transient {
		return nil
	}
	if _, err := (tpm2.FlushContext{FlushHandle: k.at}).Execute(t); err != nil {
		return fmt.Errorf("flushing the attestation key: %w", err)
	}
	return nil
}

// rsaSSA is the one signature scheme that Trustee's verifier reads.
func rsaSSA() tpm2.TPMTSigScheme {
	return tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})}
}

// keyTemplate must never change: the key is derived from it, and owners pin the key.
func keyTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{
				Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			KeyBits: 2048,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}),
	}
}
