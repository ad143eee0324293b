// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
)

const (
	tlsCertFile = "tls.crt"
	tlsKeyFile  = "tls.key"

	// selfSignedLife outlives the images that pin the certificate; a pinned certificate
	// is replaced by pinning another.
	selfSignedLife = 10 * 365 * 24 * time.Hour
	// backdate helps guests whose clock, which their host sets, is behind.
	backdate = 24 * time.Hour
)

// tlsFlags say how the connection is protected.
type tlsFlags struct {
	cert, key  string
	selfSigned bool
	names      []string
	plainHTTP  bool
}

func (f *tlsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.cert, "tls-cert", "", "PEM file with the certificate chain")
	flags.StringVar(&f.key, "tls-key", "", "PEM file with its key")
	flags.BoolVar(&f.selfSigned, "tls-self-signed", false, "make a key and certificate, and keep them in the state directory for guests to pin")
	flags.StringSliceVar(&f.names, "tls-name", nil, "further host names and addresses for --tls-self-signed")
	flags.BoolVar(&f.plainHTTP, "insecure-http", false, "no TLS")
}

func (f *tlsFlags) check() error {
	if (f.cert == "") != (f.key == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	ways := 0
	for _, way := range []bool{f.cert != "", f.selfSigned, f.plainHTTP} {
		if way {
			ways++
		}
	}
	if ways != 1 {
		return usagef("want one of --tls-cert with --tls-key, --tls-self-signed and --insecure-http")
	}
	if len(f.names) > 0 && !f.selfSigned {
		return usagef("--tls-name is for --tls-self-signed")
	}
	return nil
}

// open returns the TLS configuration, nil for plain HTTP.
func (f *tlsFlags) open(state, listen string, log *slog.Logger) (*tls.Config, error) {
	if f.plainHTTP {
		return nil, nil
	}
	cert, key := f.cert, f.key
	if f.selfSigned {
		cert, key = filepath.Join(state, tlsCertFile), filepath.Join(state, tlsKeyFile)
		names, err := f.allNames(listen)
		if err != nil {
			return nil, err
		}
		if err := keepSelfSigned(cert, key, names, f.names); err != nil {
			return nil, err
		}
		log.Info("guests and owners pin this certificate", "file", cert)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("loading TLS key pair: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, nil
}

// allNames are those asked for and those that this machine surely has.
func (f *tlsFlags) allNames(listen string) ([]string, error) {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, f.names...)
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, usagef("--listen %q is not HOST:PORT", listen)
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		names = append(names, host)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// keepSelfSigned makes the pair unless it is there. One that is there stays, because
// guests have pinned it, and must have the names that were asked for.
func keepSelfSigned(certFile, keyFile string, names, asked []string) error {
	text, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSelfSigned(certFile, keyFile, names)
	}
	if err != nil {
		return fmt.Errorf("reading own certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("reading own certificate: no PEM in %s", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("reading own certificate %s: %w", certFile, err)
	}
	for _, name := range asked {
		if err := cert.VerifyHostname(name); err != nil {
			return fmt.Errorf("own certificate %s lacks the name %s: remove it and %s to have new ones made, and pin that", certFile, name, keyFile)
		}
	}
	return nil
}

func makeSelfSigned(certFile, keyFile string, names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generating TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("generating serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "keybroker"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(selfSignedLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// Not a CA: who pins it trusts this key for these names and nothing else.
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("making own certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding TLS key: %w", err)
	}
	defer clear(pkcs8)
	// The key first: a certificate that is there means that both are.
	if err := os.Remove(keyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing TLS key: %w", err)
	}
	if err := writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return fmt.Errorf("writing TLS key: %w", err)
	}
	if err := writeNew(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return fmt.Errorf("writing own certificate: %w", err)
	}
	return nil
}
