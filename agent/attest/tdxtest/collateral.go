// SPDX-License-Identifier: Apache-2.0

package tdxtest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Publish writes into dir what keybroker reads of Intel's service: revocation lists of
// root and CA, and signed tables with one level that the platform reaches.
func (p *Platform) Publish(dir string) error {
	for i, by := range []struct {
		c *x509.Certificate
		k *ecdsa.PrivateKey
	}{{p.Root, p.RootKey}, {p.CA, p.CAKey}} {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: p.Until}
		for _, c := range p.Revoked {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.c, by.k)
		if err != nil {
			return fmt.Errorf("publishing a revocation list: %w", err)
		}
		if err := write(dir, fmt.Sprintf("crl/%d.crl", i), der); err != nil {
			return err
		}
	}
	if err := write(dir, "tdx/tcb-signing-chain.pem", PEM(p.Signer)); err != nil {
		return err
	}
	if err := p.table(dir, "tdx/tcbinfo-"+FMSPC+".json", "tcbInfo", p.tcbInfo()); err != nil {
		return err
	}
	return p.table(dir, "tdx/qeidentity.json", "enclaveIdentity", qeIdentity())
}

const isvLevels = `"tcbLevels":[{"tcb":{"isvsvn":4},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"}]`

func window() string {
	return fmt.Sprintf(`"issueDate":%q,"nextUpdate":%q`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

func (p *Platform) tcbInfo() string {
	parts := "[" + strings.TrimSuffix(strings.Repeat(`{"svn":5},`, 16), ",") + "]"
	low := "[" + `{"svn":9},{"svn":9},{"svn":5}` + strings.Repeat(`,{"svn":0}`, 13) + "]"
	return `{"id":"TDX","version":3,` + window() + `,"fmspc":"` + FMSPC + `","pceId":"0000","tdxModuleIdentities":[{"id":"TDX_01","mrsigner":"` +
		strings.Repeat("00", 48) + `",` + isvLevels + `}],"tcbLevels":[{"tcb":{"sgxtcbcomponents":` + parts + `,"pcesvn":5,"tdxtcbcomponents":` + low +
		`},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"` + p.Status + `","advisoryIDs":["INTEL-SA-00001"]}]}`
}

func qeIdentity() string {
	return `{"id":"TD_QE","version":2,` + window() + `,"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"` + strings.Repeat("00", 16) +
		`","attributesMask":"` + strings.Repeat("FF", 16) + `","mrsigner":"` + QESigner + `","isvprodid":2,` + isvLevels + `}`
}

func (p *Platform) table(dir, name, member, body string) error {
	signature, err := Sign(p.SignerKey, []byte(body))
	if err != nil {
		return err
	}
	return write(dir, name, fmt.Appendf(nil, `{%q:%s,"signature":"%x"}`, member, body, signature))
}

func write(dir, name string, data []byte) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
