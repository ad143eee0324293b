// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"os"
)

// toECDSA is the form of an ECDH key that go-jose takes.
func toECDSA(key *ecdh.PrivateKey) (*ecdsa.PrivateKey, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	out, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is %T", parsed)
	}
	return out, nil
}

// chmod closes a directory that the testing package made open to all.
func chmod(dir string) error { return os.Chmod(dir, 0o700) }
