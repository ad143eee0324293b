// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	canary         = "CANARY-SECRET-KEY"
	goodCredential = `{"access_key_id":"AKIDEXAMPLE","secret_access_key":"` + canary + `","session_token":"CANARY-SESSION"}`
)

var (
	region = []byte(`{"region":"eu-test-1"}`)
	none   = []byte("{}")
)

// newClient answers every request with status and body.
func newClient(t *testing.T, status int, body string, seen func(*http.Request, []byte)) *Client {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if seen != nil {
			seen(r, got)
		}
		w.Header().Set("Location", "https://elsewhere/")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := New(Config{Region: "eu-test-1", KMS: s.URL, Secrets: s.URL, Roots: roots,
		Credential: func(context.Context) ([]byte, error) { return []byte(goodCredential), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What is asked, byte for byte, and what covers it.
func TestRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		ask          func(*Client) ([]byte, error)
		answer, body string
		target, want string
	}{
		"decrypt": {func(c *Client) ([]byte, error) {
			return c.Decrypt(t.Context(), "alias/app", []byte{1, 2}, region, []byte(`{"encryption_context":{"b":"2","a":"1"}}`))
		}, `{"KeyId":"arn","Plaintext":"aHVudGVyMg=="}`, `{"CiphertextBlob":"AQI=","EncryptionContext":{"a":"1","b":"2"},"KeyId":"alias/app"}`, "TrentService.Decrypt", "hunter2"},
		"secret text": {func(c *Client) ([]byte, error) {
			return c.Secret(t.Context(), "app/db", region, []byte(`{"version_stage":"AWSCURRENT"}`))
		}, `{"SecretString":"hunter\u0032","VersionId":"v"}`, `{"SecretId":"app/db","VersionStage":"AWSCURRENT"}`, "secretsmanager.GetSecretValue", "hunter2"},
		"secret bytes": {func(c *Client) ([]byte, error) {
			return c.Secret(t.Context(), "app/db", region, []byte(`{"version_id":"v"}`))
		},
			`{"SecretBinary":"aHVudGVyMg==","VersionId":"v"}`, `{"SecretId":"app/db","VersionId":"v"}`, "secretsmanager.GetSecretValue", "hunter2"},
	} {
		c := newClient(t, 200, tt.answer, func(r *http.Request, body []byte) {
			if string(body) != tt.body || r.Header.Get("X-Amz-Target") != tt.target || r.Method != "POST" || r.URL.Path != "/" {
				t.Errorf("%s: %s %s, %s %s", name, r.Method, r.URL, r.Header.Get("X-Amz-Target"), body)
			}
			auth := r.Header.Get("Authorization")
			if !strings.Contains(auth, "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, ") ||
				!strings.Contains(auth, "/20260102/eu-test-1/") || r.Header.Get("X-Amz-Security-Token") != "CANARY-SESSION" {
				t.Errorf("%s: signed by %s", name, auth)
			}
		})
		c.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
		if got, err := tt.ask(c); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"denied":             {400, `{"__type":"AccessDeniedException","Message":"` + canary + `"}`, ErrDenied},
		"denied, with shape": {400, `{"__type":"com.amazon.coral.service#UnrecognizedClientException"}`, ErrDenied},
		"no such key":        {400, `{"__type":"NotFoundException"}`, ErrNotFound},
		"no such secret":     {400, `{"__type":"ResourceNotFoundException"}`, ErrNotFound},
		"another key's":      {400, `{"__type":"InvalidCiphertextException"}`, ErrAnswer},
		"a kind of its own":  {400, `{"__type":"` + canary + `"}`, ErrAnswer},
		"busy":               {400, `{"__type":"ThrottlingException"}`, ErrUnavailable},
		"broken":             {500, canary, ErrUnavailable},
		"a redirect":         {307, canary, ErrAnswer},
		"forbidden":          {403, canary, ErrDenied},
		"no JSON":            {200, canary, ErrAnswer},
		"nothing":            {200, `{}`, ErrAnswer},
		"not base64":         {200, `{"Plaintext":"` + canary + `","SecretBinary":"` + canary + `"}`, ErrAnswer},
		"twice":              {200, `{"Plaintext":"AAAA","Plaintext":"BBBB","SecretString":"a","SecretString":"b"}`, ErrAnswer},
		"another spelling":   {200, `{"plaintext":"AAAA","secretstring":"a"}`, ErrAnswer},
		"too large":          {200, `{"Plaintext":"` + strings.Repeat("AAAA", maxAnswer/4) + `"}`, ErrAnswer},
		"a secret too large": {200, `{"SecretString":"` + strings.Repeat("A", MaxSecret+1) + `"}`, ErrAnswer},
	} {
		c := newClient(t, tt.status, tt.body, nil)
		for what, ask := range map[string]func() ([]byte, error){
			"decrypt": func() ([]byte, error) { return c.Decrypt(t.Context(), "k", []byte{1}, region, none) },
			"secret":  func() ([]byte, error) { return c.Secret(t.Context(), "s", region, none) },
		} {
			got, err := ask()
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: %.40q, %v", name, what, got, err)
			}
			if err != nil && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%s, %s: the error says %v", name, what, err)
			}
		}
	}
}

// A sealed secret is signed by its owner, and still moves neither region nor address.
func TestRequestsThatAreNotMade(t *testing.T) {
	c := newClient(t, 200, "{}", func(r *http.Request, _ []byte) { t.Errorf("asked %s", r.Header.Get("X-Amz-Target")) })
	for name, err := range map[string]error{
		"another region":     second(c.Decrypt(t.Context(), "k", []byte{1}, []byte(`{"region":"us-east-1"}`), none)),
		"no region":          second(c.Decrypt(t.Context(), "k", []byte{1}, none, none)),
		"an address":         second(c.Secret(t.Context(), "k", []byte(`{"region":"eu-test-1","endpoint":"https://evil"}`), none)),
		"unknown annotation": second(c.Decrypt(t.Context(), "k", []byte{1}, region, []byte(`{"grant_tokens":["x"]}`))),
		"context of numbers": second(c.Decrypt(t.Context(), "k", []byte{1}, region, []byte(`{"encryption_context":{"a":1}}`))),
		"a name with quotes": second(c.Secret(t.Context(), `a"b`, region, none)),
		"no name":            second(c.Secret(t.Context(), "", region, none)),
		"no ciphertext":      second(c.Decrypt(t.Context(), "k", nil, region, none)),
		"a large ciphertext": second(c.Decrypt(t.Context(), "k", make([]byte, maxCiphertext+1), region, none)),
	} {
		if !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ []byte, err error) error { return err }

func TestCredentials(t *testing.T) {
	lent := []byte(goodCredential)
	c := newClient(t, 200, `{"SecretString":"x"}`, nil)
	c.cfg.Credential = func(context.Context) ([]byte, error) { return lent, nil }
	if _, err := c.Secret(t.Context(), "s", region, none); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(lent, make([]byte, len(lent))) {
		t.Error("the credential is still in memory")
	}
	for name, text := range map[string]string{
		"empty": "", "not JSON": canary, "no secret": `{"access_key_id":"A"}`, "no id": `{"secret_access_key":"` + canary + `"}`,
		"a number":         `{"access_key_id":"A","secret_access_key":1}`,
		"a line break":     `{"access_key_id":"A\r\nX: y","secret_access_key":"` + canary + `"}`,
		"a session's":      `{"access_key_id":"A","secret_access_key":"` + canary + `","session_token":"a\nb"}`,
		"an unknown field": `{"access_key_id":"A","secret_access_key":"` + canary + `","role_arn":"` + canary + `"}`,
		"twice":            `{"access_key_id":"A","access_key_id":"B","secret_access_key":"` + canary + `"}`,
		"too large":        `{"access_key_id":"A","secret_access_key":"` + strings.Repeat("x", maxCredential) + `"}`,
	} {
		c.cfg.Credential = func(context.Context) ([]byte, error) { return []byte(text), nil }
		if _, err := c.Secret(t.Context(), "s", region, none); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Region: "eu-test-1", Roots: x509.NewCertPool(), Credential: func(context.Context) ([]byte, error) { return nil, nil }}
	if c, err := New(good); err != nil || c.cfg.KMS != "kms.eu-test-1.amazonaws.com" || c.cfg.Secrets != "secretsmanager.eu-test-1.amazonaws.com" {
		t.Errorf("%+v, %v", c, err)
	}
	for name, change := range map[string]func(*Config){
		"no region": func(c *Config) { c.Region = "" }, "a region that is a host": func(c *Config) { c.Region = "evil.example/" },
		"no roots": func(c *Config) { c.Roots = nil }, "no credential": func(c *Config) { c.Credential = nil },
		"plain HTTP": func(c *Config) { c.KMS = "http://k" }, "a path": func(c *Config) { c.Secrets = "https://k/x" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"SecretString":"a","SecretBinary":"AAAA","VersionId":"v"}`), []byte(goodCredential))
	f.Add([]byte(`{"SecretBinary":"AAAA"}`), []byte(`{"access_key_id":"A","secret_access_key":"B"}`))
	f.Fuzz(func(t *testing.T, answer, file []byte) {
		if secret, err := secretOf(bytes.Clone(answer), ""); err == nil && (len(secret) == 0 || len(secret) > MaxSecret) {
			t.Errorf("a secret of %d bytes", len(secret))
		}
		_ = statusError(400, answer)
		if c, err := parseCredential(file); err == nil && (!printable(c.secret) || c.accessKeyID == "") {
			t.Error("a credential without its parts")
		}
	})
}
