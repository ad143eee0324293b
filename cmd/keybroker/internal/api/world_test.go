// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

const ownerToken = "0123456789abcdef"

// broker is a keybroker over HTTP with a clock of its own and an owner.
type broker struct {
	t      testing.TB
	dir    string
	server *Server
	url    string
	owner  *owner.Client
	output *safeBuffer

	mu     sync.Mutex // guards offset
	offset time.Duration
}

// safeBuffer collects what the keybroker prints.
type safeBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// chip is made once: its RSA signatures are most of what a test costs.
var chip = sync.OnceValues(func() (*snptest.Signer, error) {
	return snptest.New(snptest.Params{TCB: snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}, Measurement: strings.Repeat("ab", 48)})
})

func newBroker(t testing.TB) *broker {
	t.Helper()
	m, err := chip()
	must(t, err)
	b := &broker{t: t, dir: t.TempDir(), output: &safeBuffer{}}
	must(t, chmod(b.dir))
	st, err := store.Open(b.dir, make([]byte, 32))
	must(t, err)
	t.Cleanup(func() { st.Close() })
	key, err := token.GenerateKey()
	must(t, err)
	issuer, err := token.NewIssuer(key, "test")
	must(t, err)
	judge, err := verifier.New(verifier.Config{SNPTestRoots: slices.Concat(certificate(m.ARK.Raw), certificate(m.ASK.Raw))})
	must(t, err)
	log := slog.New(slog.NewTextHandler(b.output, nil))
	records, err := audit.Open(b.dir, log)
	must(t, err)
	t.Cleanup(func() { records.Close() })
	b.server, err = New(Config{Store: st, Issuer: issuer, Verifier: judge, Audit: records, Log: log, OwnerToken: []byte(ownerToken), AuthRate: 1e6})
	must(t, err)
	b.server.now = b.now
	srv := httptest.NewServer(b.server.Handler())
	t.Cleanup(srv.Close)
	b.url = srv.URL
	b.owner, err = owner.New(owner.Config{URL: b.url, AllowPlainHTTP: true, Token: []byte(ownerToken)})
	must(t, err)
	return b
}

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (b *broker) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.offset)
}

// later moves the keybroker's clock.
func (b *broker) later(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.offset += d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// document is an initdata document that names a workload.
func document(t testing.TB, workload, extra string) []byte {
	t.Helper()
	doc, err := initdata.Encode(evidence.SHA256, map[string]string{configName: fmt.Sprintf("workload = %q\n%s", workload, extra)})
	must(t, err)
	return doc
}

func digestOf(t testing.TB, doc []byte) string {
	t.Helper()
	d, err := initdata.Parse(doc)
	must(t, err)
	return verifier.Digest{Algorithm: d.Algorithm, Sum: d.Digest()}.String()
}

// register registers a workload that runs on the test chip with this initdata.
func (b *broker) register(id string, doc []byte, change func(*owner.Registration)) owner.Registration {
	b.t.Helper()
	r := owner.Registration{
		ID: id, TEEs: []evidence.TEE{evidence.SNP}, InitData: []string{digestOf(b.t, doc)}, TestRoots: true,
		SNP: &owner.SNPReference{Measurements: []string{strings.Repeat("ab", 48)}, AcceptMissingCRL: true},
	}
	if change != nil {
		change(&r)
	}
	_, err := b.owner.Register(b.t.Context(), r)
	must(b.t, err)
	return r
}

func (b *broker) put(workload, path, value string) {
	b.t.Helper()
	_, err := b.owner.PutSecret(b.t.Context(), workload, path, []byte(value))
	must(b.t, err)
}

// records returns the audit log.
func (b *broker) records() []audit.Record {
	b.t.Helper()
	var list []audit.Record
	_, err := audit.Read(b.dir, func(r audit.Record) error { list = append(list, r); return nil })
	must(b.t, err)
	return list
}

// wantLast fails unless the last audit record is of this event and rule.
func (b *broker) wantLast(event audit.Event, rule string) audit.Record {
	b.t.Helper()
	list := b.records()
	last := list[len(list)-1]
	if last.Event != event || last.Rule != rule || last.Allowed != (rule == "") {
		b.t.Fatalf("last record is %+v, want %s with rule %q", last, event, rule)
	}
	return last
}

// guest does the guest's half of the protocol, rightly or wrongly.
type guest struct {
	b      *broker
	tee    evidence.TEE
	doc    []byte
	params snptest.Params
	key    *ecdh.PrivateKey
	jwk    evidence.JWK

	// devices makes the parts beside the TEE; nil is none.
	devices func(evidence.ReportData) string

	cookie, nonce, token string
}

func (b *broker) guest(doc []byte) *guest {
	b.t.Helper()
	m, err := chip()
	must(b.t, err)
	g := &guest{b: b, tee: evidence.SNP, doc: doc, params: m.Params}
	if d, err := initdata.Parse(doc); err == nil {
		host := d.HostData()
		g.params.HostData = hex.EncodeToString(host[:])
	}
	g.newKey()
	return g
}

func (g *guest) newKey() {
	g.b.t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	must(g.b.t, err)
	g.key = key
	g.jwk, err = evidence.NewECJWK(key.PublicKey())
	must(g.b.t, err)
}

// answer is what came back.
type answer struct {
	status int
	body   string
	header http.Header
}

func (a answer) variant(t testing.TB) string {
	t.Helper()
	e, err := evidence.ParseErrorInformation([]byte(a.body))
	if err != nil {
		t.Fatalf("answer %d %q is not error information: %v", a.status, a.body, err)
	}
	return e.Variant
}

func (b *broker) do(ctx context.Context, method, path string, body []byte, header map[string]string) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(body))
	must(b.t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return answer{resp.StatusCode, string(text), resp.Header}
}

func (g *guest) auth() answer {
	g.b.t.Helper()
	a := g.b.do(g.b.t.Context(), "POST", "/kbs/v0/auth", evidence.Request{TEE: g.tee, Hashes: evidence.SupportedHashes()}.Encode(), nil)
	if a.status == http.StatusOK {
		c, err := evidence.ParseChallenge([]byte(a.body))
		must(g.b.t, err)
		g.nonce = c.Nonce
		g.cookie = cookieOf(g.b.t, a)
	}
	return a
}

func cookieOf(t testing.TB, a answer) string {
	t.Helper()
	cookies := (&http.Response{Header: a.header}).Cookies()
	if len(cookies) != 1 || cookies[0].Name != "kbs-session-id" || cookies[0].Domain != "" {
		t.Fatalf("cookies %v", cookies)
	}
	return cookies[0].Value
}

// attestation is the body of an attest request as this guest makes it.
func (g *guest) attestation() []byte {
	g.b.t.Helper()
	runtimeData, err := evidence.NewRuntimeData(g.nonce, g.jwk, "")
	must(g.b.t, err)
	if g.devices != nil {
		data, err := runtimeData.DeviceReportData(evidence.DefaultHash)
		must(g.b.t, err)
		runtimeData, err = evidence.NewRuntimeData(g.nonce, g.jwk, g.devices(data))
		must(g.b.t, err)
	}
	data, err := runtimeData.ReportData(evidence.DefaultHash)
	must(g.b.t, err)
	body, err := evidence.Attestation{InitData: g.doc, RuntimeData: runtimeData, Evidence: g.evidence(data)}.Encode()
	must(g.b.t, err)
	return body
}

func (g *guest) evidence(data evidence.ReportData) json.RawMessage {
	g.b.t.Helper()
	if g.tee == evidence.Sample {
		ev, err := evidence.SampleEvidence{SVN: "1", ReportData: data.Digest()}.Encode()
		must(g.b.t, err)
		return ev
	}
	m, err := chip()
	must(g.b.t, err)
	signer := *m // a copy, whose Params are this guest's
	signer.Params = g.params
	e, err := signer.Evidence(data.Bytes64())
	must(g.b.t, err)
	ev, err := e.Encode()
	must(g.b.t, err)
	return ev
}

func (g *guest) attest() answer {
	g.b.t.Helper()
	return g.post(g.attestation())
}

func (g *guest) post(body []byte) answer {
	g.b.t.Helper()
	a := g.b.do(g.b.t.Context(), "POST", "/kbs/v0/attest", body, map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
	if a.status == http.StatusOK {
		jwt, err := evidence.ParseToken([]byte(a.body))
		must(g.b.t, err)
		g.token = string(jwt)
	}
	return a
}

// handshake fails unless the guest is accepted.
func (g *guest) handshake() *guest {
	g.b.t.Helper()
	if a := g.auth(); a.status != http.StatusOK {
		g.b.t.Fatalf("auth: %d %s", a.status, a.body)
	}
	if a := g.attest(); a.status != http.StatusOK {
		list := g.b.records()
		g.b.t.Fatalf("attest: %d %s: %+v", a.status, a.body, list[len(list)-1])
	}
	return g
}

// get asks with the session's cookie.
func (g *guest) get(path string) answer {
	g.b.t.Helper()
	return g.b.do(g.b.t.Context(), "GET", "/kbs/v0/resource/"+path, nil, map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
}

// getBearer asks with a token.
func (b *broker) getBearer(path, jwt string) answer {
	b.t.Helper()
	return b.do(b.t.Context(), "GET", "/kbs/v0/resource/"+path, nil, map[string]string{"Authorization": "Bearer " + jwt})
}

// open decrypts an answer with go-jose, another implementation than the one that
// encrypted it.
func (g *guest) open(a answer) (string, error) {
	obj, err := jose.ParseEncrypted(a.body, []jose.KeyAlgorithm{jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return "", err
	}
	key, err := toECDSA(g.key)
	if err != nil {
		return "", err
	}
	plain, err := obj.Decrypt(key)
	return string(plain), err
}

// wantSecret fails unless the answer is this secret for this guest.
func (g *guest) wantSecret(a answer, want string) {
	g.b.t.Helper()
	if a.status != http.StatusOK {
		g.b.t.Fatalf("answer %d %s", a.status, a.body)
	}
	got, err := g.open(a)
	if err != nil || got != want {
		g.b.t.Fatalf("opened %q, %v, want %q", got, err, want)
	}
}

// wantRefused fails unless the answer has this status and variant and says nothing of
// what was wanted or found.
func wantRefused(t testing.TB, a answer, status int, variant string) {
	t.Helper()
	if a.status != status || a.variant(t) != variant {
		t.Fatalf("answer %d %s, want %d %s", a.status, a.body, status, variant)
	}
	for _, leak := range []string{strings.Repeat("ab", 8), "sha256:", "wanted", "found"} {
		if strings.Contains(a.body, leak) {
			t.Errorf("answer says %q: %s", leak, a.body)
		}
	}
}

func parallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func count(statuses []int, status int) int {
	return len(slices.DeleteFunc(slices.Clone(statuses), func(s int) bool { return s != status }))
}
