// SPDX-License-Identifier: Apache-2.0

package chip

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/BurntSushi/toml"
)

// Names in a directory.
const (
	arkFile    = "ark.pem"
	askFile    = "ask.pem"
	vcekFile   = "vcek.pem"
	keyFile    = "vcek.key"
	reportFile = "report.toml"
)

// Save writes a directory for the signer. It refuses one that has a signer already.
func (s *Signer) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("saving test signer: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return fmt.Errorf("saving test signer: %w", err)
	}
	var params bytes.Buffer
	if err := toml.NewEncoder(&params).Encode(s.Params); err != nil {
		return fmt.Errorf("saving test signer: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})},
		{arkFile, certPEM(s.ARK)}, {askFile, certPEM(s.ASK)}, {vcekFile, certPEM(s.VCEK)},
		{reportFile, params.Bytes()},
	} {
		out, err := os.OpenFile(filepath.Join(dir, f.name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("saving test signer: %w", err)
		}
		_, err = out.Write(f.data)
		if err := errors.Join(err, out.Close()); err != nil {
			return fmt.Errorf("saving test signer: %w", err)
		}
	}
	return nil
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Load reads a directory. Unknown keys in report.toml are refused.
func Load(dir string) (*Signer, error) {
	s := &Signer{}
	meta, err := toml.DecodeFile(filepath.Join(dir, reportFile), &s.Params)
	if err != nil {
		return nil, fmt.Errorf("loading test signer: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("loading test signer: %s: unknown key %q", reportFile, unknown[0].String())
	}
	if err := s.Params.Check(); err != nil {
		return nil, fmt.Errorf("loading test signer: %s: %w", reportFile, err)
	}
	for _, f := range []struct {
		name string
		cert **x509.Certificate
	}{{arkFile, &s.ARK}, {askFile, &s.ASK}, {vcekFile, &s.VCEK}} {
		der, err := loadPEM(dir, f.name, "CERTIFICATE")
		if err != nil {
			return nil, err
		}
		if *f.cert, err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("loading test signer: %s: %w", f.name, err)
		}
	}
	der, err := loadPEM(dir, keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("loading test signer: %s: not a PKCS #8 key", keyFile)
	}
	var ok bool
	if s.key, ok = key.(*ecdsa.PrivateKey); !ok || s.key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("loading test signer: %s: not a P-384 key", keyFile)
	}
	if !s.key.PublicKey.Equal(s.VCEK.PublicKey) {
		return nil, fmt.Errorf("loading test signer: %s is not the key of %s", keyFile, vcekFile)
	}
	return s, nil
}

func loadPEM(dir, name, kind string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("loading test signer: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("loading test signer: %s is not one PEM block %s", name, kind)
	}
	return block.Bytes, nil
}
