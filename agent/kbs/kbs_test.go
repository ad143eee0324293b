// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sampleAttester echoes what it is bound to.
type sampleAttester struct {
	calls atomic.Int32
	err   error
}

func (*sampleAttester) TEE() evidence.TEE { return evidence.Sample }

func (a *sampleAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	a.calls.Add(1)
	if a.err != nil {
		return nil, a.err
	}
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

const (
	uri    = "kbs:///default/key/1"
	secret = "thirty-two bytes of a secret key"
)

// newPair returns a broker with one secret and a client with short pauses.
func newPair(t testing.TB, change func(*Config)) (*kbstest.Server, *Client) {
	t.Helper()
	server := kbstest.Start()
	t.Cleanup(server.Close)
	server.Put("default/key/1", []byte(secret))
	cfg := Config{URL: server.URL, AllowPlainHTTP: true, Attester: &sampleAttester{}}
	if change != nil {
		change(&cfg)
	}
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client.firstPause = time.Millisecond
	t.Cleanup(client.Close)
	return server, client
}

func wantSecret(t testing.TB, c *Client) {
	t.Helper()
	got, err := c.Key(t.Context(), uri)
	if err != nil || string(got) != secret {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestKeyWithEveryKindOfTEEKey(t *testing.T) {
	for _, algorithm := range []KeyAlgorithm{"", ECP256, ECP521, RSA2048} {
		initData := []byte("version = \"0.1.0\" # é <&>\r\n")
		server, client := newPair(t, func(cfg *Config) { cfg.KeyAlgorithm, cfg.InitData = algorithm, initData })
		large := bytes.Repeat([]byte{0, 0xff, '"'}, evidence.MaxSecretSize/3)
		server.Put("default/key/large", large)
		server.Put("default/key/empty", nil)
		wantSecret(t, client)
		for uri, want := range map[string][]byte{"kbs:///default/key/large": large, "kbs://host:8080/default/key/empty": nil} {
			if got, err := client.Key(t.Context(), uri); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q %s: got %d bytes, %v", algorithm, uri, len(got), err)
			}
		}
		if !bytes.Equal(server.InitData(), initData) {
			t.Errorf("%q: initdata arrived as %q", algorithm, server.InitData())
		}
		if n := server.Count("POST auth"); n != 1 {
			t.Errorf("%q: %d handshakes for three secrets", algorithm, n)
		}
	}
}

func TestPluginAndQueryReachTheServer(t *testing.T) {
	server, client := newPair(t, nil)
	server.Put("nebula-ca/credential?name=a&ip=10.0.0.1", []byte("credential"))
	got, err := client.Key(t.Context(), "kbs+nebula-ca:///credential?name=a&ip=10.0.0.1")
	if err != nil || string(got) != "credential" {
		t.Errorf("got %q, %v", got, err)
	}
	if server.Count("GET nebula-ca/credential") != 1 {
		t.Error("the plugin path was not asked for")
	}
}

func TestHashThatTheServerSelects(t *testing.T) {
	server, client := newPair(t, nil)
	server.Misbehave(kbstest.SelectSHA512)
	wantSecret(t, client)
}

func TestPinnedTLS(t *testing.T) {
	server := kbstest.StartTLS()
	defer server.Close()
	server.Put("default/key/1", []byte(secret))
	var issued []time.Time
	told := func(at time.Time) { issued = append(issued, at) }
	pinned, err := New(Config{URL: server.URL, Roots: server.Roots, Attester: &sampleAttester{}, Issued: told})
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	wantSecret(t, pinned)
	if len(issued) != 1 || time.Since(issued[0]) > time.Minute || time.Until(issued[0]) > 0 {
		t.Errorf("issued %v", issued)
	}
	plain := kbstest.Start() // whoever is on the way could say any time
	defer plain.Close()
	plain.Put("default/key/1", []byte(secret))
	open, err := New(Config{URL: plain.URL, AllowPlainHTTP: true, Attester: &sampleAttester{}, Issued: told})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if wantSecret(t, open); len(issued) != 1 {
		t.Error("a time that came over plain HTTP is believed")
	}
	server.Reset()
	other, err := New(Config{URL: server.URL, Roots: x509.NewCertPool(), Attester: &sampleAttester{}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Key(t.Context(), uri); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "pinned roots") {
		t.Errorf("certificate of another root: %v", err)
	}
	if n := server.Count(""); n != 0 {
		t.Errorf("%d requests reached a server that is not pinned", n)
	}
}

type lie struct {
	mode kbstest.Mode
	want error
	text string
	auth int // handshakes begun
	gets int
}

func lies() []lie {
	return []lie{
		{kbstest.AuthDenied, ErrDenied, "Version Mismatch", 1, 0},
		{kbstest.AuthGarbage, ErrProtocol, "not a JSON object", 1, 0},
		{kbstest.AuthTwoNonces, ErrProtocol, "occurs twice", 1, 0},
		{kbstest.LongNonce, ErrProtocol, "nonce is 15360 bytes", 1, 0},
		{kbstest.EmptyNonce, ErrProtocol, "nonce is 0 bytes", 1, 0},
		{kbstest.UnknownHash, ErrProtocol, `unsupported hash algorithm "sm3"`, 1, 0},
		{kbstest.NoCookie, ErrProtocol, "no session cookie", 1, 0},
		{kbstest.AuthRedirect, ErrProtocol, "redirects are refused", 1, 0},
		{kbstest.AuthHuge, ErrProtocol, "more than 16384 bytes", 1, 0},
		{kbstest.AuthHang, ErrUnavailable, "no answer in time", 3, 0},
		{kbstest.AuthBusy, ErrUnavailable, "status 503", 3, 0},
		{kbstest.Disconnect, ErrUnavailable, "cut short", 3, 0},
		{kbstest.NotHTTP, ErrUnavailable, "not HTTP", 3, 0},
		{kbstest.AttestDenied, ErrDenied, "Attest failed", 1, 0},
		{kbstest.AttestRedirect, ErrProtocol, "redirects are refused", 1, 0},
		{kbstest.AttestError, ErrProtocol, "status 500", 1, 0},
		{kbstest.BadToken, ErrProtocol, "JWT", 1, 0},
		{kbstest.ExpiredToken, ErrProtocol, "token: expired", 1, 0},
		{kbstest.EternalToken, ErrProtocol, "token: no expiry", 1, 0},
		{kbstest.FutureToken, ErrProtocol, "token: not valid yet", 1, 0},
		{kbstest.Denied401, ErrDenied, "PolicyDeny", 2, 2},
		{kbstest.Denied403, ErrDenied, "PolicyDeny", 1, 1},
		{kbstest.Missing404, ErrNotFound, "no such resource", 1, 1},
		{kbstest.Error500, ErrProtocol, "status 500", 1, 1},
		{kbstest.Garbage, ErrProtocol, "not a JSON object", 1, 1},
		{kbstest.PlainSecret, ErrProtocol, "not a JSON object", 1, 1},
		{kbstest.Hang, ErrUnavailable, "no answer in time", 1, 3},
		{kbstest.SlowBody, ErrUnavailable, "no answer in time", 1, 3},
		{kbstest.HugeBody, ErrProtocol, "more than", 1, 1},
		{kbstest.Redirect, ErrProtocol, "redirects are refused", 1, 1},
		{kbstest.OtherKey, ErrProtocol, "not encrypted to this session's key", 1, 1},
		{kbstest.OtherCurve, ErrProtocol, "ephemeral key on P-521", 1, 1},
		{kbstest.WrongAlg, ErrProtocol, `alg "RSA-OAEP-256" is not for this session's key`, 1, 1},
		{kbstest.WrongEnc, ErrProtocol, "unsupported enc", 1, 1},
		{kbstest.Compressed, ErrProtocol, `unknown member "zip"`, 1, 1},
		{kbstest.PartyInfo, ErrProtocol, `unknown member "apu"`, 1, 1},
		{kbstest.EPKMembers, ErrProtocol, `unknown member "kid"`, 1, 1},
		{kbstest.TwoTags, ErrProtocol, "occurs twice", 1, 1},
		{kbstest.Altered, ErrProtocol, "altered", 1, 1},
		{kbstest.Padded, ErrProtocol, "canonical", 1, 1},
		{kbstest.HostileError, ErrDenied, "PolicyDeny", 1, 1},
		{kbstest.Echo, ErrUnavailable, "not HTTP", 1, 3},
	}
}

// A broker that lies: one named error, a bounded number of requests, and a client that
// works once the broker behaves.
func TestLies(t *testing.T) {
	for _, tc := range lies() {
		t.Run(string(tc.mode), func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			server, client := newPair(t, func(cfg *Config) {
				if tc.text == "no answer in time" {
					cfg.RequestTimeout = 500 * time.Millisecond
				}
				cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
			})
			server.Misbehave(tc.mode)
			got, err := client.Key(t.Context(), uri)
			if got != nil || !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %q, error %v, want %v with %q", got, err, tc.want, tc.text)
			}
			if auth, gets := server.Count("POST auth"), server.Count("GET "); auth != tc.auth || gets != tc.gets {
				t.Errorf("%d handshakes and %d reads, want %d and %d", auth, gets, tc.auth, tc.gets)
			}
			if server.Strayed() != 0 {
				t.Error("followed a redirect")
			}
			for name, text := range map[string]string{"error": err.Error(), "log": logged.String()} {
				if strings.Contains(text, "eyJ") || strings.Contains(text, "Bearer") {
					t.Errorf("the %s repeats a token: %s", name, text)
				}
				if strings.ContainsAny(strings.TrimSpace(text), "\x1b\x00") || len(text) > 3000 || name == "error" && strings.Contains(text, "\n") {
					t.Errorf("the %s is not clean: %q", name, text)
				}
			}
			server.Misbehave("")
			wantSecret(t, client)
		})
	}
}

func TestTransientFailuresAreTriedAgain(t *testing.T) {
	for _, mode := range []kbstest.Mode{kbstest.OneDisconnect, kbstest.OneAttestDrop} {
		server, client := newPair(t, nil)
		server.Misbehave(mode)
		wantSecret(t, client)
		// A second attestation with the first nonce would be refused.
		if auth := server.Count("POST auth"); auth != 2 {
			t.Errorf("%s: %d handshakes begun, want 2", mode, auth)
		}
	}
}

func TestLostSessionCausesOneHandshake(t *testing.T) {
	server, client := newPair(t, nil)
	wantSecret(t, client)
	server.Forget()
	wantSecret(t, client)
	server.Misbehave(kbstest.ForgetsOnce)
	wantSecret(t, client)
	if auth, gets := server.Count("POST auth"), server.Count("GET "); auth != 3 || gets != 5 {
		t.Errorf("%d handshakes and %d reads, want 3 and 5", auth, gets)
	}
}

func TestThousandCallersOneHandshake(t *testing.T) {
	attester := &sampleAttester{}
	server, client := newPair(t, func(cfg *Config) { cfg.Attester = attester })
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() { wantSecret(t, client) })
	}
	wg.Wait()
	if auth, made := server.Count("POST auth"), attester.calls.Load(); auth != 1 || made != 1 {
		t.Errorf("%d handshakes, %d reports, want 1", auth, made)
	}
	// All of them lose the session at once.
	server.Forget()
	for range 1000 {
		wg.Go(func() { wantSecret(t, client) })
	}
	wg.Wait()
	if auth := server.Count("POST auth"); auth != 2 {
		t.Errorf("%d handshakes after the session was lost, want 2", auth)
	}
}

func TestThousandCallersShareADeny(t *testing.T) {
	server, client := newPair(t, func(cfg *Config) { cfg.Attester = &slowAttester{delay: 300 * time.Millisecond} })
	server.Misbehave(kbstest.AttestDenied)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if _, err := client.Key(t.Context(), uri); !errors.Is(err, ErrDenied) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if auth := server.Count("POST auth"); auth > 5 {
		t.Errorf("%d handshakes for one deny", auth)
	}
}

// slowAttester takes its time, until its context ends.
type slowAttester struct {
	sampleAttester
	delay time.Duration
}

func (a *slowAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	select {
	case <-time.After(a.delay):
		return a.sampleAttester.Evidence(ctx, r)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestACallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	attester := &slowAttester{delay: 200 * time.Millisecond}
	_, client := newPair(t, func(cfg *Config) { cfg.Attester = attester })
	impatient, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := client.Key(impatient, uri); !errors.Is(err, context.Canceled) {
			t.Errorf("impatient caller: %v", err)
		}
	})
	time.Sleep(50 * time.Millisecond) // the first caller runs the handshake by now
	for range 10 {
		wg.Go(func() { wantSecret(t, client) })
	}
	time.Sleep(50 * time.Millisecond)
	cancel()
	wg.Wait()
}

func TestACallerWhoWaitsCanGiveUp(t *testing.T) {
	attester := &slowAttester{delay: 500 * time.Millisecond}
	_, client := newPair(t, func(cfg *Config) { cfg.Attester = attester })
	var wg sync.WaitGroup
	wg.Go(func() { wantSecret(t, client) })
	time.Sleep(50 * time.Millisecond)
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Key(impatient, uri); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	wg.Wait()
}

func TestAttesterFailureIsFinal(t *testing.T) {
	attester := &sampleAttester{err: errors.New("no TSM")}
	server, client := newPair(t, func(cfg *Config) { cfg.Attester = attester })
	if _, err := client.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "making evidence: no TSM") {
		t.Errorf("got %v", err)
	}
	if n := server.Count("POST auth"); n != 1 {
		t.Errorf("%d handshakes, want 1", n)
	}
	attester.err = nil
	if token, err := client.Token(t.Context()); err != nil || bytes.Count(token, []byte(".")) != 2 {
		t.Errorf("got %q, %v", token, err)
	}
}

func TestTokenIsACopyAndKept(t *testing.T) {
	server, client := newPair(t, nil)
	first, err := client.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	saved := bytes.Clone(first)
	clear(first)
	second, err := client.Token(t.Context())
	if err != nil || !bytes.Equal(second, saved) || server.Count("POST auth") != 1 {
		t.Errorf("got %q, %v, %d handshakes", second, err, server.Count("POST auth"))
	}
	client.current.until = time.Now() // its time is over
	third, err := client.Token(t.Context())
	if err != nil || bytes.Equal(third, saved) || server.Count("POST auth") != 2 {
		t.Errorf("got %q, %v, %d handshakes", third, err, server.Count("POST auth"))
	}
}

func TestUnreachableServerIsNamed(t *testing.T) {
	server, client := newPair(t, nil)
	_ = server
	client.base.Host = "127.0.0.1:1"
	_, err := client.Key(t.Context(), uri)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "dial 127.0.0.1:1: connect: connection refused") {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), "/kbs/v0") {
		t.Errorf("error repeats the request: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	a := &sampleAttester{}
	pool := x509.NewCertPool()
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"plain HTTP by default", Config{URL: "http://kbs", Attester: a}, "plain HTTP"},
		{"https without roots", Config{URL: "https://kbs", Attester: a}, "without pinned roots"},
		{"https without roots, plain allowed", Config{URL: "https://kbs", AllowPlainHTTP: true, Attester: a}, "without pinned roots"},
		{"roots that check nothing", Config{URL: "http://kbs", AllowPlainHTTP: true, Roots: pool, Attester: a}, "pinned roots"},
		{"no scheme", Config{URL: "kbs:8080", Roots: pool, Attester: a}, "neither https nor http"},
		{"file", Config{URL: "file:///kbs", Attester: a}, "neither https nor http"},
		{"no host", Config{URL: "https:///x", Roots: pool, Attester: a}, "a scheme, a host"},
		{"password in the URL", Config{URL: "https://u:p@kbs", Roots: pool, Attester: a}, "a scheme, a host"},
		{"query", Config{URL: "https://kbs/?x=1", Roots: pool, Attester: a}, "a scheme, a host"},
		{"not a URL", Config{URL: "https://\x00", Roots: pool, Attester: a}, "does not parse"},
		{"no attester", Config{URL: "https://kbs", Roots: pool}, "no attester"},
		{"P-384", Config{URL: "https://kbs", Roots: pool, Attester: a, KeyAlgorithm: "ECDH-ES+A256KW-P384"}, "unsupported key algorithm"},
		{"huge initdata", Config{URL: "https://kbs", Roots: pool, Attester: a, InitData: make([]byte, evidence.MaxInitDataSize+1)}, "initdata is"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: error repeats the password", tc.name)
		}
	}
	c, err := New(Config{URL: "https://kbs:8080/base//", Roots: pool, Attester: a})
	if err != nil || c.base.String() != "https://kbs:8080/base/kbs/v0" {
		t.Errorf("base is %v, %v", c.base, err)
	}
}

func BenchmarkHandshake(b *testing.B) {
	for _, algorithm := range []KeyAlgorithm{ECP256, ECP521} {
		b.Run(string(algorithm), func(b *testing.B) {
			_, client := newPair(b, func(cfg *Config) { cfg.KeyAlgorithm = algorithm })
			for b.Loop() {
				if _, err := client.handshake(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkKey(b *testing.B) {
	_, client := newPair(b, nil)
	for b.Loop() {
		if _, err := client.Key(b.Context(), uri); err != nil {
			b.Fatal(err)
		}
	}
}
