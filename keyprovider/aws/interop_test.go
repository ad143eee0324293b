// SPDX-License-Identifier: Apache-2.0

//go:build interop

package aws_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/aws"
)

// moto is what .ci/moto installs.
const moto = "../../build/cache/moto"

// service is moto over TLS: KMS, Secrets Manager and IAM at one address.
type service struct {
	url, certFile string
	roots         *x509.CertPool
}

func python(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := filepath.Abs(moto)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "AWS_EC2_METADATA_DISABLED=true", "HOME="+t.TempDir())
	return cmd
}

func startService(t *testing.T) service {
	t.Helper()
	dir := t.TempDir()
	s := service{certFile: filepath.Join(dir, "cert.pem")}
	keyFile := filepath.Join(dir, "key.pem")
	s.roots = writeCertificate(t, s.certFile, keyFile)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.url = "https://127.0.0.1:" + port
	var output bytes.Buffer
	cmd := python(t, "-m", "moto.server", "-p", port, "-c", s.certFile, "-k", keyFile)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // it is killed
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
			return s
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			<-ended
			t.Fatalf("moto did not start: %s", output.Bytes())
		}
	}
}

func writeCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "moto"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	if err := errors.Join(os.WriteFile(certFile, text, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}

// peer runs testdata/peer.py, which uses Amazon's client.
func (s service) peer(t *testing.T, args ...string) string {
	t.Helper()
	cmd := python(t, append([]string{"testdata/peer.py", s.url, s.certFile}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func (s service) client(t *testing.T, credential string) *aws.Client {
	t.Helper()
	c, err := aws.New(aws.Config{Region: "eu-central-1", KMS: s.url, Secrets: s.url, Roots: s.roots,
		Credential: func(context.Context) ([]byte, error) { return []byte(credential), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// keys hands out the verification key.
type keys []byte

func (k keys) Key(context.Context, string) ([]byte, error) { return bytes.Clone(k), nil }

// moto checks every signature by botocore's own code and every call by IAM's policies. Envelopes and secrets that
// Amazon's client made are opened here, data keys that were made here are opened by Amazon's client, and a credential
// that is wrong or may not is refused.
func TestInteropMoto(t *testing.T) {
	s := startService(t)
	var world struct {
		Guest, Nobody json.RawMessage
		Key, Old      string
		Plain         []byte
		Wrapped       []byte
	}
	if err := json.Unmarshal([]byte(s.peer(t, "setup")), &world); err != nil {
		t.Fatal(err)
	}
	c := s.client(t, string(world.Guest))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	settings, bound := []byte(`{"region":"eu-central-1"}`), []byte(`{"encryption_context":{"workload":"web"}}`)
	const kid = "kbs:///app/signing/1"
	envelope := func(id string, annotations, plain, wrapped []byte) []byte {
		t.Helper()
		kms := keyprovider.KMSKey{Provider: "aws", ID: id, Settings: settings, Annotations: annotations}
		text, err := keyprovider.SealEnvelope(key, kid, kms, plain, wrapped, []byte("hunter2"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	stored := func(name, annotations string) []byte {
		t.Helper()
		text, err := keyprovider.SealStored(key, kid, "aws", name, settings, []byte(annotations))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	plain, wrapped, err := c.DataKey(t.Context(), "alias/app", aws.EncryptionContext{"workload": "web"})
	if err != nil {
		t.Fatal(err)
	}
	var guest struct {
		ID     string `json:"access_key_id"`
		Secret string `json:"secret_access_key"`
	}
	if err := json.Unmarshal(world.Guest, &guest); err != nil {
		t.Fatal(err)
	}
	if got := s.peer(t, "decrypt", guest.ID, guest.Secret, base64.StdEncoding.EncodeToString(wrapped)); got != base64.StdEncoding.EncodeToString(plain) {
		t.Error("Amazon's client opens our data key to something else")
	}
	ours := envelope("alias/app", bound, plain, wrapped)
	altered := bytes.Clone(wrapped)
	altered[len(altered)-1] ^= 1
	wrong := fmt.Sprintf(`{"access_key_id":%q,"secret_access_key":"wrong"}`, guest.ID)
	for name, tt := range map[string]struct {
		credential string
		text       []byte
		want       string
		err        error
	}{
		"our envelope":                {string(world.Guest), ours, "hunter2", nil},
		"envelope of Amazon's client": {string(world.Guest), envelope(world.Key, bound, world.Plain, world.Wrapped), "hunter2", nil},
		"secret of text":              {string(world.Guest), stored("app/text", `{}`), "hunter2 ä", nil},
		"secret of bytes":             {string(world.Guest), stored("app/bytes", `{"version_stage":"AWSCURRENT"}`), "\x00\xffnew", nil},
		"an earlier version":          {string(world.Guest), stored("app/bytes", `{"version_id":"`+world.Old+`"}`), "\x00\xffold", nil},
		"no such secret":              {string(world.Guest), stored("app/none", `{}`), "", aws.ErrNotFound},
		"an altered data key":         {string(world.Guest), envelope("alias/app", bound, plain, altered), "", aws.ErrAnswer},
		"bound to something else":     {string(world.Guest), envelope("alias/app", []byte(`{}`), plain, wrapped), "", aws.ErrAnswer},
		"a wrong signature":           {wrong, ours, "", aws.ErrDenied},
		"who may not, KMS":            {string(world.Nobody), ours, "", aws.ErrDenied},
		"who may not, secrets":        {string(world.Nobody), stored("app/text", `{}`), "", aws.ErrDenied},
		"a key that is not there":     {`{"access_key_id":"AKIANOBODY","secret_access_key":"x"}`, ours, "", aws.ErrDenied},
	} {
		client := s.client(t, tt.credential)
		u := &keyprovider.Unsealer{Keys: keys(jwk), KMS: map[string]keyprovider.KMS{"aws": client}, Stores: map[string]keyprovider.SecretStore{"aws": client}}
		got, err := u.Unseal(t.Context(), tt.text)
		if !errors.Is(err, tt.err) || string(got) != tt.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
