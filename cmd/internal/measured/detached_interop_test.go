// SPDX-License-Identifier: Apache-2.0

//go:build interop

package measured

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDetachedOpenSSL checks a signature with the commands that `measure verify --help`
// names, and takes one that openssl made.
func TestDetachedOpenSSL(t *testing.T) {
	key, dir := bundleKey(t), t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("release.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	write("release.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	message := []byte(`{"version":"0.1.0","type":"sample","payload":"e30="}` + "\n")
	write("message.json", message)
	sig, err := SignDetached(message, key)
	if err != nil {
		t.Fatal(err)
	}
	write("message.sig", sig)
	verify := func() (string, error) {
		if out, err := run("sh", "-c", "base64 -d message.sig > message.der"); err != nil {
			t.Fatalf("running base64: %v: %s", err, out)
		}
		return run("openssl", "dgst", "-sha256", "-verify", "release.pub", "-signature", "message.der", "message.json")
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("openssl: %v: %s", err, out)
	}
	write("message.json", bytes.Replace(message, []byte("e30="), []byte("e31="), 1))
	if out, err := verify(); err == nil {
		t.Errorf("openssl took another message: %s", out)
	}
	write("message.json", message)
	if out, err := run("openssl", "dgst", "-sha256", "-sign", "release.key", "-out", "theirs.der", "message.json"); err != nil {
		t.Fatalf("running openssl: %v: %s", err, out)
	}
	der, err := os.ReadFile(filepath.Join(dir, "theirs.der"))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyDetached(message, []byte(base64.StdEncoding.EncodeToString(der)), &key.PublicKey); err != nil {
		t.Errorf("openssl's signature: %v", err)
	}
}
