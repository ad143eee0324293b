// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"time"
)

// exportAge is how long a token that is handed out is handed out again. It covers a
// burst of callers; a caller that comes back because its token was refused gets another.
const exportAge = 10 * time.Second

// Exporter earns tokens whose private key other processes get, as attestation-agent's
// GetToken does. Its handshakes and keys are its own: the key of a Client that fetches
// secrets never leaves, and an Exporter fetches none. It is safe for concurrent use.
type Exporter struct {
	client *Client

	// mu guards what was handed out last.
	mu   sync.Mutex
	last *session
	made time.Time
}

// NewExporter checks the configuration; it does not connect.
func NewExporter(cfg Config) (*Exporter, error) {
	client, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &Exporter{client: client}, nil
}

// Close drops idle connections and the session.
func (e *Exporter) Close() { e.client.Close() }

// Token returns a token and its key as PEM: PKCS #8 for EC keys, PKCS #1 for RSA keys,
// which is what confidential-data-hub reads. Whoever has both is this guest to the
// broker until the token ends. Callers who ask at the same time share a handshake. The
// caller clears both.
func (e *Exporter) Token(ctx context.Context) (token, key []byte, err error) {
	e.mu.Lock()
	var stale *session
	if time.Since(e.made) >= exportAge {
		stale = e.last
	}
	e.mu.Unlock()
	s, err := e.client.session(ctx, stale)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching a KBS token to hand out: %w", err)
	}
	e.mu.Lock()
	if s != e.last {
		e.last, e.made = s, time.Now()
	}
	e.mu.Unlock()
	if key, err = s.key.export(); err != nil {
		return nil, nil, err
	}
	return bytes.Clone(s.token), key, nil
}

// export writes the private key as PEM.
func (k teeKey) export() ([]byte, error) {
	if k.rsa != nil {
		der := x509.MarshalPKCS1PrivateKey(k.rsa)
		defer clear(der)
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.ec)
	if err != nil {
		return nil, fmt.Errorf("writing the TEE key: %w", err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
