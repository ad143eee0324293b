// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
)

// command runs one command line in this process.
func command(t testing.TB, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader("from standard input"), out: &o, err: &e})
	return code, o.String(), e.String()
}

// wantDone fails unless the command succeeds; it returns what it printed.
func wantDone(t testing.TB, args ...string) string {
	t.Helper()
	code, out, errOut := command(t, args...)
	if code != exitDone {
		t.Fatalf("%v: exit %d: %s", args, code, errOut)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output collects what a running keybroker prints.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// broker is a running keybroker.
type broker struct {
	t     testing.TB
	dir   string // has state and what the owner has
	state string
	url   string
	out   *output
	stop  func() error
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// start runs keybroker serve until the test ends or stop is called.
func start(t testing.TB, dir string, args ...string) *broker {
	t.Helper()
	b := &broker{t: t, dir: dir, state: filepath.Join(dir, "state"), out: &output{}}
	addr := freeAddr(t)
	b.url = "https://" + addr
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // ended by the clean-up
	done := make(chan int, 1)
	var errOut output
	go func() {
		line := append([]string{"serve", "--listen", addr, "--state", b.state, "--seal-key-file", filepath.Join(dir, "seal.key"), "--tls-self-signed"}, args...)
		done <- run(ctx, line, streams{in: strings.NewReader(""), out: b.out, err: &errOut})
	}()
	stopped := false
	b.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		if code := <-done; code != exitDone {
			return fmt.Errorf("keybroker serve: exit %d: %s", code, errOut.String())
		}
		return nil
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("keybroker does not listen: %s%s", b.out, errOut.String())
		}
	}
}

// owner are the flags of the verbs that reach the keybroker.
func (b *broker) owner(args ...string) []string {
	return append(args, "--keybroker", b.url, "--owner-token-file", filepath.Join(b.state, "owner-token"), "--ca", filepath.Join(b.state, "tls.crt"))
}

func (b *broker) file(name, text string) string {
	b.t.Helper()
	name = filepath.Join(b.dir, name)
	must(b.t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// attester signs with a test chip where the hardware would.
type attester struct{ signer *snptest.Signer }

func (attester) TEE() evidence.TEE { return evidence.SNP }

func (a attester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	e, err := a.signer.Evidence(r.Bytes64())
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

// launch returns a guest that was launched with this initdata.
func launch(t testing.TB, doc []byte) attester {
	t.Helper()
	d, err := initdata.Parse(doc)
	must(t, err)
	host := d.HostData()
	signer, err := snptest.New(snptest.Params{
		TCB: snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}, Measurement: strings.Repeat("ab", 48), HostData: hex.EncodeToString(host[:]),
	})
	must(t, err)
	return attester{signer}
}

// client is the guest's own, with the keybroker's certificate pinned.
func (b *broker) client(a attester, doc []byte, algorithm kbs.KeyAlgorithm) *kbs.Client {
	b.t.Helper()
	c, err := kbs.New(kbs.Config{URL: b.url, Roots: pinned(b.t, b), Attester: a, InitData: doc, KeyAlgorithm: algorithm})
	must(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

// pinned is the keybroker's certificate.
func pinned(t testing.TB, b *broker) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.state, "tls.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatal("tls.crt has no certificate")
	}
	return roots
}

const registrationText = `id = "web"
tees = ["snp"]
initdata = [%q]
test_roots = %v

[snp]
measurements = [%q]
accept_missing_crl = true
`

func TestWholeLife(t *testing.T) {
	dir := t.TempDir()
	doc, err := initdata.Encode(evidence.SHA384, map[string]string{"casemate.toml": `workload = "web"`})
	must(t, err)
	guest := launch(t, doc)
	root := filepath.Join(dir, "ark.pem")
	must(t, os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: guest.signer.ARK.Raw}), 0o600))
	b := start(t, dir, "--snp-root", root)

	d, err := initdata.Parse(doc)
	must(t, err)
	digest := fmt.Sprintf("sha384:%x", d.Digest())
	text := fmt.Sprintf(registrationText, digest, true, strings.Repeat("ab", 48))
	out := wantDone(t, b.owner("register", b.file("web.toml", text))...)
	if !strings.Contains(out, "registered workload web (new)") || !strings.Contains(out, "test_roots = true") {
		t.Errorf("register printed %q", out)
	}
	wantDone(t, b.owner("resource", "set", "--workload", "web", "app/key/1", b.file("secret", "the secret"))...)
	if out := wantDone(t, b.owner("resource", "set", "--workload", "later", "app/key/2", "-")...); !strings.Contains(out, "19 bytes") || !strings.Contains(out, "not registered yet") {
		t.Errorf("resource set printed %q", out)
	}
	for _, algorithm := range []kbs.KeyAlgorithm{kbs.ECP256, kbs.ECP521, kbs.RSA2048} {
		c := b.client(guest, doc, algorithm)
		got, err := c.Key(t.Context(), "kbs:///app/key/1")
		if err != nil || string(got) != "the secret" {
			t.Fatalf("%s: got %q, %v", algorithm, got, err)
		}
		if _, err := c.Key(t.Context(), "kbs:///app/key/2"); !errors.Is(err, kbs.ErrNotFound) {
			t.Errorf("another workload's secret: %v", err)
		}
	}
	other := launch(t, doc)
	other.signer.Params.Measurement = strings.Repeat("cd", 48)
	if _, err := b.client(other, doc, kbs.ECP256).Key(t.Context(), "kbs:///app/key/1"); !errors.Is(err, kbs.ErrDenied) || !strings.Contains(err.Error(), "measurement") {
		t.Errorf("another measurement: %v", err)
	}
	checkLog(t, b)
	checkShow(t, b, digest)

	// A restart keeps everything but sessions, the token key included.
	c := b.client(guest, doc, kbs.ECP256)
	token, err := c.Token(t.Context())
	must(t, err)
	must(t, b.stop())
	again := start(t, dir, "--snp-root", root)
	if got, err := again.client(guest, doc, kbs.ECP256).Key(t.Context(), "kbs:///app/key/1"); err != nil || string(got) != "the secret" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	if strings.Contains(b.out.String(), string(token)) || strings.Contains(b.out.String(), "the secret") {
		t.Error("output has a token or a secret")
	}
	wantDone(t, again.owner("register", "--remove", "web")...)
	if _, err := again.client(guest, doc, kbs.ECP256).Key(t.Context(), "kbs:///app/key/1"); !errors.Is(err, kbs.ErrDenied) {
		t.Errorf("a removed workload: %v", err)
	}
}

func checkLog(t *testing.T, b *broker) {
	t.Helper()
	out := wantDone(t, "log", "--state", b.state, "--denied", "--workload", "web")
	for _, want := range []string{"deny  attest", "rule   measurement", "wanted " + strings.Repeat("ab", 48), "found  " + strings.Repeat("cd", 48), "TEST ROOT"} {
		if !strings.Contains(out, want) {
			t.Errorf("log lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "allow") {
		t.Errorf("log --denied shows what was allowed:\n%s", out)
	}
	for line := range strings.Lines(wantDone(t, "log", "--state", b.state, "--json")) {
		var r struct {
			Event string `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Event == "" {
			t.Errorf("log --json printed %q: %v", line, err)
		}
	}
}

func checkShow(t *testing.T, b *broker, digest string) {
	t.Helper()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"reference-values", "show", "web"}, "measurement  " + strings.Repeat("ab", 48)},
		{[]string{"reference-values", "show", "web"}, "initdata     " + digest},
		{[]string{"reference-values", "show", "web", "--json"}, `"accept_missing_crl": true`},
		{[]string{"reference-values", "show"}, "TEST ROOTS"},
		{[]string{"reference-values", "show", "--json"}, `"id": "web"`},
		{[]string{"resource", "list", "--workload", "web"}, "10  kbs:///app/key/1"},
		{[]string{"resource", "list", "--workload", "web", "--json"}, `"size": 10`},
		{[]string{"policy", "show", "web"}, "package policy"},
		{[]string{"policy", "show", "web", "--json"}, `"built_in": true`},
	} {
		if out := wantDone(t, b.owner(tt.args...)...); !strings.Contains(out, tt.want) {
			t.Errorf("%v printed %q, want %q", tt.args, out, tt.want)
		}
	}
	wantDone(t, b.owner("resource", "delete", "--workload", "later", "app/key/2")...)
	if code, _, errOut := command(t, b.owner("resource", "delete", "--workload", "later", "app/key/2")...); code != exitFailed || !strings.Contains(errOut, "not found") {
		t.Errorf("delete again: exit %d, %s", code, errOut)
	}
}

func TestExampleRegistration(t *testing.T) {
	b := start(t, t.TempDir())
	wantDone(t, b.owner("register", "testdata/registration.toml")...)
	if out := wantDone(t, b.owner("policy", "show", "web")...); !strings.Contains(out, `data["resource-path"][0] == "app"`) {
		t.Errorf("policy show printed %q", out)
	}
	if out := wantDone(t, b.owner("register", "testdata/registration.toml", "--json")...); !strings.Contains(out, `"created": false`) {
		t.Errorf("register again printed %q", out)
	}
}

func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{}, {"nosuch"}, {"serve"}, {"serve", "--state", dir}, {"serve", "--state", dir, "--nosuch"}, {"serve", "--state", dir, "--insecure-http", "extra"},
		{"serve", "--state", dir, "--insecure-http", "--tls-self-signed"}, {"serve", "--state", dir, "--tls-cert", "x"},
		{"serve", "--state", dir, "--insecure-http", "--tls-name", "x"}, {"serve", "--state", dir, "--insecure-http", "--auth-rate", "0"},
		{"register"}, {"register", "f"}, {"register", "--remove", "web", "--policy", "x"}, {"resource"}, {"resource", "set", "--workload", "w", "a/b/c"},
		{"resource", "list"}, {"policy"}, {"policy", "check"}, {"policy", "show", "a", "b"}, {"reference-values"}, {"log"}, {"log", "--state", dir, "x"}, {"version", "x"},
	} {
		code, out, errOut := command(t, args...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, "usage: keybroker") {
			t.Errorf("%v: exit %d, out %q, err %q", args, code, out, errOut)
		}
	}
}

func TestRefusedStarts(t *testing.T) {
	state := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "state")
		must(t, os.Mkdir(dir, 0o700))
		return dir
	}
	for _, tt := range []struct {
		name, want string
		args       func(t *testing.T) []string
	}{
		{"state that others can read", "mode 0755", func(t *testing.T) []string {
			dir := state(t)
			must(t, os.Chmod(dir, 0o755))
			return []string{"--state", dir, "--insecure-http"}
		}},
		{"seal key that others can read", "mode 0644", func(t *testing.T) []string {
			dir := state(t)
			name := filepath.Join(dir, "seal.key")
			must(t, os.WriteFile(name, []byte(strings.Repeat("00", 32)), 0o644))
			must(t, os.Chmod(name, 0o644))
			return []string{"--state", dir, "--insecure-http"}
		}},
		{"absent TLS files", "loading TLS key pair", func(t *testing.T) []string {
			return []string{"--state", state(t), "--tls-cert", "/nonexistent/a", "--tls-key", "/nonexistent/b"}
		}},
		{"absent root", "reading SNP test root", func(t *testing.T) []string {
			return []string{"--state", state(t), "--insecure-http", "--snp-root", "/nonexistent/a"}
		}},
		{"collateral that is not there", "not a directory", func(t *testing.T) []string {
			return []string{"--state", state(t), "--insecure-http", "--snp-collateral", "/nonexistent/a"}
		}},
		{"address in use", "listening on", func(t *testing.T) []string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { l.Close() })
			return []string{"--state", state(t), "--insecure-http", "--listen", l.Addr().String()}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, errOut := command(t, append([]string{"serve"}, tt.args(t)...)...)
			if code != exitFailed || !strings.Contains(errOut, tt.want) {
				t.Fatalf("exit %d: %s, want %q", code, errOut, tt.want)
			}
		})
	}
}

// What a keybroker was told to be weak in, it says when it starts, and keeps.
func TestWeaknessesAreNamed(t *testing.T) {
	dir := t.TempDir()
	m, err := snptest.New(snptest.Params{})
	must(t, err)
	root := filepath.Join(dir, "ark.pem")
	must(t, os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.ARK.Raw}), 0o600))
	state := filepath.Join(dir, "state")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &output{}
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--state", state, "--insecure-http", "--snp-root", root},
			streams{in: strings.NewReader(""), out: out, err: out})
	}()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "msg=start"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(out)
		}
	}
	cancel()
	if code := <-done; code != exitDone {
		t.Errorf("exit %d", code)
	}
	log := wantDone(t, "log", "--state", state)
	for _, want := range []string{"plain http", "test root", "seal key is in the state directory"} {
		if !strings.Contains(out.String(), want) || !strings.Contains(log, want) {
			t.Errorf("%q is not in the output or not in the log:\n%s\n%s", want, out, log)
		}
	}
}

func TestSelfSignedCertificateIsKept(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir, "--tls-name", "broker.example")
	first, err := os.ReadFile(filepath.Join(b.state, "tls.crt"))
	must(t, err)
	block, _ := pem.Decode(first)
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	for _, name := range []string{"broker.example", "localhost", "127.0.0.1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if cert.IsCA {
		t.Error("the certificate can sign others")
	}
	must(t, b.stop())
	must(t, start(t, dir).stop())
	again, err := os.ReadFile(filepath.Join(b.state, "tls.crt"))
	if err != nil || !bytes.Equal(again, first) {
		t.Errorf("the certificate changed: %v", err)
	}
	code, _, errOut := command(t, "serve", "--listen", freeAddr(t), "--state", b.state, "--seal-key-file", filepath.Join(dir, "seal.key"), "--tls-self-signed", "--tls-name", "other.example")
	if code != exitFailed || !strings.Contains(errOut, "lacks the name other.example") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestPolicyCheck(t *testing.T) {
	name := filepath.Join(t.TempDir(), "p.rego")
	for _, tt := range []struct {
		text, want string
		code       int
	}{
		{"package policy\nallow := true", "a resource policy", exitDone},
		{"package policy\n\nallow if nosuch()", "policy line 3", exitFailed},
		{"package policy\nallow if http.send({}).status == 200", "http.send", exitFailed},
		{"", "is empty", exitFailed},
	} {
		must(t, os.WriteFile(name, []byte(tt.text), 0o600))
		code, out, errOut := command(t, "policy", "check", name)
		if code != tt.code || !strings.Contains(out+errOut, tt.want) {
			t.Errorf("%q: exit %d, %s%s", tt.text, code, out, errOut)
		}
	}
}

func TestVersion(t *testing.T) {
	if out := wantDone(t, "version"); !strings.HasPrefix(out, "keybroker ") || !strings.Contains(out, "KBS protocol 0.4.0") {
		t.Errorf("version printed %q", out)
	}
	if out := wantDone(t, "version", "--json"); !json.Valid([]byte(out)) {
		t.Errorf("version --json printed %q", out)
	}
}

// A log line of a hostile host does not move the reader's terminal.
func TestLogIsPlain(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "audit.log"), []byte(`{"event":"attest","allowed":false,"rule":"x","wanted":"a","found":"\u001b[2J\u202e\n    rule   fine"}`+"\n"), 0o600))
	out := wantDone(t, "log", "--state", dir)
	if strings.ContainsAny(out, "\x1b\u202e") || strings.Count(out, "\n") != 4 {
		t.Errorf("log printed %q", out)
	}
}
