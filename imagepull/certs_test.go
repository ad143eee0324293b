// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, cn string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes a certificate, signed by itself while a has none.
func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) leaf(t *testing.T, usage x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	return a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage}})
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// tlsRegistry is the fake behind TLS, with a certificate of ca; with clients it
// asks for one of theirs.
func tlsRegistry(t *testing.T, ca, clients *authority) *registryFake {
	t.Helper()
	r := &registryFake{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
	r.Server = httptest.NewUnstartedServer(r)
	cert, key := ca.leaf(t, x509.ExtKeyUsageServerAuth)
	r.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	if clients != nil {
		r.TLS.ClientAuth, r.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		r.TLS.ClientCAs.AddCert(clients.cert)
	}
	r.Config.ErrorLog = nil
	r.StartTLS()
	t.Cleanup(r.Close)
	r.put(t, "v1", testImage{layers: []testLayer{gzipLayer(t, someTar(t))}})
	return r
}

// writeCerts writes DIR/HOST/NAME files.
func writeCerts(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A registry is reached with what its own directory holds. What fails names the
// files that were used, or that none were.
func TestCertificates(t *testing.T) {
	ca, other, clients := newAuthority(t, "ca"), newAuthority(t, "other"), newAuthority(t, "clients")
	open, closed := tlsRegistry(t, ca, nil), tlsRegistry(t, ca, clients)
	client, clientKey := clients.leaf(t, x509.ExtKeyUsageClientAuth)
	stranger, strangerKey := other.leaf(t, x509.ExtKeyUsageClientAuth)
	pair := func(c *x509.Certificate, k *ecdsa.PrivateKey, host string) map[string][]byte {
		return map[string][]byte{host + "/ca.crt": certPEM(ca.cert), host + "/me.cert": certPEM(c), host + "/me.key": keyPEM(t, k)}
	}
	for _, tt := range []struct {
		name     string
		registry *registryFake
		files    map[string][]byte
		want     string // of the error; "" is none
	}{
		{"its CA", open, map[string][]byte{open.host() + "/ca.crt": certPEM(ca.cert)}, ""},
		{"its CA among several", open, map[string][]byte{open.host() + "/a.crt": append(certPEM(other.cert), certPEM(ca.cert)...), open.host() + "/README": nil}, ""},
		{"no directory", open, nil, "is for " + open.host()},
		{"another registry's directory", open, map[string][]byte{closed.host() + "/ca.crt": certPEM(ca.cert)}, "is for " + open.host()},
		{"another CA", open, map[string][]byte{open.host() + "/wrong.crt": certPEM(other.cert)}, "with wrong.crt of "},
		{"client certificate", closed, pair(client, clientKey, closed.host()), ""},
		{"no client certificate", closed, map[string][]byte{closed.host() + "/ca.crt": certPEM(ca.cert)}, "with ca.crt of "},
		{"a stranger's client certificate", closed, pair(stranger, strangerKey, closed.host()), "with ca.crt, me.cert of "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			certs, err := ReadCertificates(writeCerts(t, tt.files))
			if err != nil {
				t.Fatal(err)
			}
			p := newTestPuller(t, nil, func(c *Config) { c.Certificates, c.Roots = certs, x509.NewCertPool() })
			_, err = p.Pull(t.Context(), tt.registry.ref("v1"))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// A registry that redirects to another host gives it neither its CA nor the
// client's certificate.
func TestCertificatesStayWithTheirHost(t *testing.T) {
	ca, clients := newAuthority(t, "ca"), newAuthority(t, "clients")
	from, to := tlsRegistry(t, ca, clients), tlsRegistry(t, ca, nil)
	shown := false
	to.TLS.ClientAuth = tls.RequestClientCert
	to.handle = func(_ http.ResponseWriter, req *http.Request) bool {
		shown = shown || len(req.TLS.PeerCertificates) > 0
		return false
	}
	from.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, req, to.URL+req.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	client, key := clients.leaf(t, x509.ExtKeyUsageClientAuth)
	certs, err := ReadCertificates(writeCerts(t, map[string][]byte{
		from.host() + "/ca.crt": certPEM(ca.cert), from.host() + "/me.cert": certPEM(client), from.host() + "/me.key": keyPEM(t, key)}))
	if err != nil {
		t.Fatal(err)
	}
	pull := func(roots ...*x509.Certificate) error {
		pool := x509.NewCertPool()
		for _, c := range roots {
			pool.AddCert(c)
		}
		p := newTestPuller(t, nil, func(c *Config) { c.Certificates, c.Roots = certs, pool })
		p.retrier.attempts = 1
		_, err := p.Pull(t.Context(), from.ref("v1"))
		return err
	}
	var unknown x509.UnknownAuthorityError
	if err := pull(); !errors.As(err, &unknown) {
		t.Errorf("the registry's CA vouched for another host: got error %v", err)
	}
	if err := pull(ca.cert); err != nil || shown {
		t.Errorf("got error %v, client certificate shown to another host %t", err, shown)
	}
}

func TestReadCertificatesRefuses(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.leaf(t, x509.ExtKeyUsageClientAuth)
	_, otherKey := ca.leaf(t, x509.ExtKeyUsageClientAuth)
	for name, tt := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"certificate without a key":       {map[string][]byte{"h/me.cert": certPEM(cert)}, "me.cert has no key"},
		"key without a certificate":       {map[string][]byte{"h/me.key": keyPEM(t, key)}, "me.key has no certificate"},
		"another certificate's key":       {map[string][]byte{"h/me.cert": certPEM(cert), "h/me.key": keyPEM(t, otherKey)}, "me.key: tls:"},
		"CA file without a certificate":   {map[string][]byte{"h/ca.crt": []byte("nothing")}, "ca.crt: want a PEM certificate"},
		"key among the CAs":               {map[string][]byte{"h/ca.crt": keyPEM(t, key)}, "want certificates"},
		"damaged CA":                      {map[string][]byte{"h/ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})}, "ca.crt"},
		"file without an end":             {map[string][]byte{"h/ca.crt": make([]byte, maxCertFile+1)}, "more than"},
		"two directories of Docker's hub": {map[string][]byte{"docker.io/ca.crt": certPEM(ca.cert), "index.docker.io/ca.crt": certPEM(ca.cert)}, "one registry"},
	} {
		if _, err := ReadCertificates(writeCerts(t, tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "PRIVATE") && name != "key among the CAs" {
			t.Errorf("%s: got error %v, want %q in it", name, err, tt.want)
		}
	}
	if _, err := ReadCertificates(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got error %v", err)
	}
}
