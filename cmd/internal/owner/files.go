// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"os"
)

const (
	// maxTokenFile is far above the 64 characters that a keybroker writes.
	maxTokenFile = 1 << 10
	// maxRootsFile holds some hundred certificates.
	maxRootsFile = 1 << 20
)

// ReadToken returns the owner token in a file, without surrounding white space. The
// caller clears it.
func ReadToken(name string) ([]byte, error) {
	text, err := readCapped(name, maxTokenFile)
	if err != nil {
		return nil, fmt.Errorf("reading owner token: %w", err)
	}
	token := bytes.TrimSpace(text)
	if len(token) == 0 {
		return nil, fmt.Errorf("reading owner token: %s is empty", name)
	}
	return token, nil
}

// ReadRoots returns the PEM certificates in a file: the ones to trust for the
// keybroker, and no others.
func ReadRoots(name string) (*x509.CertPool, error) {
	text, err := readCapped(name, maxRootsFile)
	if err != nil {
		return nil, fmt.Errorf("reading keybroker certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading keybroker certificate: no PEM certificate in %s", name)
	}
	return roots, nil
}

func readCapped(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is over %d bytes", name, limit)
	}
	return text, nil
}
