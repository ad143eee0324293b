// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/casemate/casemate/agent/evidence"
)

// maxChains bounds the memory of verified chains, a few KiB each. A fleet has one
// for each chip and firmware level.
const maxChains = 4096

// chain is a VEK whose signatures lead to a root. Dates and revocation are not part
// of it: they change while it is remembered.
type chain struct {
	vek  vek
	ask  *x509.Certificate
	root *root
}

// chainKey is everything that the result depends on.
type chainKey struct {
	line string
	sum  [sha256.Size]byte
}

// chains verifies each chain once. It is safe for concurrent use.
type chains struct {
	amd  map[string]*root
	test *root // nil when none was given

	mu       sync.Mutex // guards verified
	verified map[chainKey]*chain
}

func newChains(testRoots []byte) (*chains, error) {
	amd, err := amdRoots()
	if err != nil {
		return nil, err
	}
	c := &chains{amd: amd, verified: make(map[chainKey]*chain)}
	if testRoots != nil {
		if c.test, err = parseRoot(testRoots); err != nil {
			return nil, fmt.Errorf("loading SNP test root: %w", err)
		}
		c.test.test = true
	}
	return c, nil
}

// verify returns the chain of v below the root of its product line, or below the test
// root. offered are the certificates that the evidence brought along.
func (c *chains) verify(v vek, line string, offered []evidence.SNPCert) (*chain, error) {
	key := keyOf(v, line, offered)
	c.mu.Lock()
	known := c.verified[key]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	fresh, err := c.build(v, line, offered)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verified) >= maxChains {
		clear(c.verified)
	}
	c.verified[key] = fresh
	return fresh, nil
}

func keyOf(v vek, line string, offered []evidence.SNPCert) chainKey {
	h := sha256.New()
	one := func(der []byte) {
		sum := sha256.Sum256(der)
		h.Write(sum[:])
	}
	one(v.cert.Raw)
	for _, o := range offered {
		one(o.DER)
	}
	return chainKey{line: line, sum: [sha256.Size]byte(h.Sum(nil))}
}

func (c *chains) build(v vek, line string, offered []evidence.SNPCert) (*chain, error) {
	var errs []error
	for _, r := range []*root{c.amd[line], c.test} {
		if r == nil {
			continue
		}
		ask, err := r.certify(v, offered)
		if err == nil {
			return &chain{vek: v, ask: ask, root: r}, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// certify finds the intermediate between v and r. One that the evidence brings is as
// good as one of ours once the root has signed it.
func (r *root) certify(v vek, offered []evidence.SNPCert) (*x509.Certificate, error) {
	for _, ask := range r.intermediates {
		if signedBy(v.cert, ask) == nil {
			return ask, nil
		}
	}
	for _, o := range offered {
		if o.Type != evidence.SNPCertASK && o.Type != evidence.SNPCertOther {
			continue
		}
		ask, err := x509.ParseCertificate(o.DER)
		if err == nil && signedBy(ask, r.ark) == nil && signedBy(v.cert, ask) == nil {
			return ask, nil
		}
	}
	return nil, fmt.Errorf("%s by %q does not lead to %q", v.kind, v.cert.Issuer.CommonName, r.ark.Subject.CommonName)
}
