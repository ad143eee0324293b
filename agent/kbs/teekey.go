// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
)

// rsaBits is what guest-components uses; larger keys cost time at every handshake.
const rsaBits = 2048

// teeKey is the private key of one session. It never leaves the process unless an
// Exporter made it; Go offers no way to clear it.
type teeKey struct {
	ec  *ecdh.PrivateKey
	rsa *rsa.PrivateKey
}

func newTEEKey(algorithm KeyAlgorithm) (teeKey, error) {
	var k teeKey
	var err error
	switch algorithm {
	case ECP256:
		k.ec, err = ecdh.P256().GenerateKey(rand.Reader)
	case ECP521:
		k.ec, err = ecdh.P521().GenerateKey(rand.Reader)
	case RSA2048:
		k.rsa, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		err = fmt.Errorf("unsupported key algorithm %.32q", algorithm)
	}
	return k, err
}

func (k teeKey) public() (evidence.JWK, error) {
	if k.ec != nil {
		return evidence.NewECJWK(k.ec.PublicKey())
	}
	return evidence.NewRSAJWK(&k.rsa.PublicKey)
}
