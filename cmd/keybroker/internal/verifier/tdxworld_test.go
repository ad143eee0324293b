// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// tdxWorld is a TDX machine below a root of its own, and all that Intel publishes on it.
type tdxWorld struct {
	dir                              string
	rootKey, caKey, pckKey, ak, tcbk *ecdsa.PrivateKey
	root, ca, pck, signer            *x509.Certificate
	version                          uint16
	body, qe                         []byte
	log                              []byte
	tcbStatus                        string
	until                            time.Time
	revoked                          []*x509.Certificate
	edit                             func(quote []byte)
	after                            func() // what happens to what Intel published
	in                               Input
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issue(t testing.TB, name string, isCA bool, key *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey, ext ...pkix.Extension) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2 * time.Hour), ExtraExtensions: ext, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if isCA {
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func sgxExtension(t testing.TB) pkix.Extension {
	t.Helper()
	type item struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	at := func(arcs ...int) asn1.ObjectIdentifier { return slices.Concat(sgxOID, arcs) }
	var tcb []item
	for i := range 17 {
		tcb = append(tcb, item{at(arcTCB, i+1), 5})
	}
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	return pkix.Extension{Id: sgxOID, Value: marshal([]item{
		{at(arcTCB), asn1.RawValue{FullBytes: marshal(tcb)}}, {at(arcPCEID), []byte{0, 0}}, {at(arcFMSPC), []byte{1, 2, 3, 4, 5, 6}},
	})}
}

func newTDXWorld(t testing.TB, version uint16) *tdxWorld {
	t.Helper()
	w := &tdxWorld{dir: t.TempDir(), version: version, rootKey: newKey(t), caKey: newKey(t), pckKey: newKey(t), ak: newKey(t), tcbk: newKey(t), tcbStatus: "UpToDate"}
	w.root = issue(t, "test root", true, w.rootKey, nil, w.rootKey)
	w.ca = issue(t, "test CA", true, w.caKey, w.root, w.rootKey)
	w.pck = issue(t, "test PCK", false, w.pckKey, w.ca, w.caKey, sgxExtension(t))
	w.signer = issue(t, "test TCB signing", false, w.tcbk, w.root, w.rootKey)
	w.until = time.Now().Add(time.Hour)
	sum, err := evidence.SHA256.Sum([]byte("the initdata"))
	if err != nil {
		t.Fatal(err)
	}
	w.in = Input{TEE: evidence.TDX, ReportData: reportData(t), InitData: Digest{evidence.SHA256, sum}, Now: time.Now()}
	w.in.Registration = owner.Registration{
		ID: "web", TEEs: []evidence.TEE{evidence.TDX}, InitData: []string{w.in.InitData.String()}, TestRoots: true,
		TDX: &owner.TDXReference{Measurements: []string{strings.Repeat("ab", 48)}},
	}
	w.body = make([]byte, 584)
	if version == 5 {
		w.body = make([]byte, 648)
	}
	copy(w.body, []byte{5, 1, 5}) // module version 1
	w.body[123] = 0x10            // SEPT_VE_DISABLE
	for i := range 48 {
		w.body[136+i] = 0xab
	}
	copy(w.body[184:], sum)
	data := w.in.ReportData.Bytes64()
	copy(w.body[520:], data[:])
	w.qe = make([]byte, 384)
	w.qe[128], w.qe[256], w.qe[258] = 0xDC, 2, 4
	key := w.akBytes()
	binding := sha256.Sum256(append(key, 9, 9))
	copy(w.qe[320:], binding[:])
	return w
}

func (w *tdxWorld) akBytes() []byte {
	raw, _ := w.ak.PublicKey.Bytes()
	return raw[1:]
}

func signP256(t testing.TB, k *ecdsa.PrivateKey, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

func (w *tdxWorld) quote(t testing.TB) []byte {
	t.Helper()
	le := binary.LittleEndian
	signed := le.AppendUint16(nil, w.version)
	signed = append(signed, 2, 0, 0x81, 0, 0, 0)
	signed = append(signed, make([]byte, 40)...)
	if w.version == 5 {
		signed = le.AppendUint32(le.AppendUint16(signed, 3), uint32(len(w.body)))
	}
	signed = append(signed, w.body...)
	chain := slices.Concat(toPEM(w.pck), toPEM(w.ca), toPEM(w.root))
	qe := slices.Concat(w.qe, signP256(t, w.pckKey, w.qe), []byte{2, 0, 9, 9, 5, 0}, le.AppendUint32(nil, uint32(len(chain))), chain)
	data := slices.Concat(signP256(t, w.ak, signed), w.akBytes(), []byte{6, 0}, le.AppendUint32(nil, uint32(len(qe))), qe)
	return slices.Concat(signed, le.AppendUint32(nil, uint32(len(data))), data)
}

func (w *tdxWorld) publish(t testing.TB) {
	t.Helper()
	for i, by := range []struct {
		c *x509.Certificate
		k *ecdsa.PrivateKey
	}{{w.root, w.rootKey}, {w.ca, w.caKey}} {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: w.until}
		for _, c := range w.revoked {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.c, by.k)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(w.dir, "crl", fmt.Sprintf("%d.crl", i)), der)
	}
	writeFile(t, filepath.Join(w.dir, tdxSigningChain), toPEM(w.signer))
	window := fmt.Sprintf(`"issueDate":%q,"nextUpdate":%q`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	table := func(name, member, body string) {
		text := fmt.Sprintf(`{%q:%s,"signature":"%x"}`, member, body, signP256(t, w.tcbk, []byte(body)))
		writeFile(t, filepath.Join(w.dir, name), []byte(text))
	}
	isv := `"tcbLevels":[{"tcb":{"isvsvn":4},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"}]`
	parts := "[" + strings.TrimSuffix(strings.Repeat(`{"svn":5},`, 16), ",") + "]"
	low := "[" + `{"svn":9},{"svn":9},{"svn":5}` + strings.Repeat(`,{"svn":0}`, 13) + "]"
	table("tdx/tcbinfo-010203040506.json", "tcbInfo", `{"id":"TDX","version":3,`+window+`,"fmspc":"010203040506","pceId":"0000","tdxModuleIdentities":[{"id":"TDX_01","mrsigner":"`+
		strings.Repeat("00", 48)+`",`+isv+`}],"tcbLevels":[{"tcb":{"sgxtcbcomponents":`+parts+`,"pcesvn":5,"tdxtcbcomponents":`+low+`},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"`+w.tcbStatus+`","advisoryIDs":["INTEL-SA-00001"]}]}`)
	table(tdxQEIdentity, "enclaveIdentity", `{"id":"TD_QE","version":2,`+window+`,"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"`+strings.Repeat("00", 16)+`","attributesMask":"`+
		strings.Repeat("FF", 16)+`","mrsigner":"DC`+strings.Repeat("00", 31)+`","isvprodid":2,`+isv+`}`)
}

func (w *tdxWorld) verify(t testing.TB) Verdict {
	t.Helper()
	return w.verifier(t).Verify(w.in)
}

// verifier is one with what Intel publishes; the evidence is in w.in then.
func (w *tdxWorld) verifier(t testing.TB) *Verifier {
	t.Helper()
	w.publish(t)
	if w.after != nil {
		w.after()
	}
	v, err := New(Config{TDXTestRoot: toPEM(w.root), Collateral: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	quote := w.quote(t)
	if w.edit != nil {
		w.edit(quote)
	}
	if w.in.Evidence, err = (evidence.TDXEvidence{Quote: quote, EventLog: w.log}).Encode(); err != nil {
		t.Fatal(err)
	}
	return v
}
