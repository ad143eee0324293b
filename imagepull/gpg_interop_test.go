// SPDX-License-Identifier: Apache-2.0

//go:build interop

package imagepull

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/imagepull/trust"
)

// gpgHome makes a key with GnuPG and returns its home and public key.
func gpgHome(t *testing.T, user string) (home string, public []byte) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // its socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg(t, home, "--passphrase", "", "--quick-generate-key", user, "rsa2048", "sign")
	return home, gpg(t, home, "--export", user)
}

func gpg(t *testing.T, home string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", home, "--batch", "--yes", "--pinentry-mode", "loopback"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpg %q: %v: %s", args, err, &stderr)
	}
	return out
}

// TestInteropSignedBy: skopeo signs with GnuPG as it pushes, and casemate admits
// that image from a store of files and from one behind HTTP, and no other.
func TestInteropSignedBy(t *testing.T) {
	needRoot(t)
	host := realRegistry(t)
	layout, staging, confDir := t.TempDir(), t.TempDir(), t.TempDir()
	writeLayout(t, layout, "v1", someImage(t))
	home, public := gpgHome(t, "owner@example.org")
	conf := fmt.Sprintf("default-docker:\n  lookaside: file://%[1]s\n  lookaside-staging: file://%[1]s\n", staging)
	if err := os.WriteFile(filepath.Join(confDir, "default.yaml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	push := func(tag string, args ...string) {
		t.Helper()
		args = append([]string{"--registries.d", confDir, "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", testUser + ":" + testPassword}, args...)
		cmd := exec.CommandContext(t.Context(), "skopeo", append(args, "oci:"+layout+":v1", "docker://"+host+"/team/app:"+tag)...)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skopeo: %v: %s", err, out)
		}
	}
	push("signed", "--sign-by", "owner@example.org")
	push("other")

	store := httptest.NewServer(http.FileServer(http.Dir(staging)))
	t.Cleanup(store.Close)
	auth, err := ParseAuthFile([]byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(testUser+":"+testPassword)))))
	if err != nil {
		t.Fatal(err)
	}
	policy := func(key []byte) *trust.Policy {
		return policyOf(t, fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"signedBy","keyType":"GPGKeys","keyData":%q}]}}}`, host+"/team/app", base64.StdEncoding.EncodeToString(key)))
	}
	for name, base := range map[string]string{"files": "file://" + staging, "http": store.URL} {
		t.Run(name, func(t *testing.T) {
			lookaside, err := ParseLookaside([]byte("docker:\n  " + host + "/team:\n    lookaside: " + base + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			p := newTestPuller(t, nil, func(c *Config) {
				c.Insecure, c.Credentials, c.Policy, c.Lookaside = []string{host}, auth, policy(public), lookaside
			})
			mustPull(t, p, host+"/team/app:signed")
			if _, err := p.Pull(t.Context(), host+"/team/app:other"); !errors.Is(err, trust.ErrDenied) {
				t.Errorf("signed under another tag: got %v", err)
			}
			_, foreign := gpgHome(t, "stranger@example.org")
			p.SetPolicy(policy(foreign)) // the image is in the store by now
			if _, err := p.Pull(t.Context(), host+"/team/app:signed"); !errors.Is(err, trust.ErrDenied) {
				t.Errorf("cached image under a policy with another key: got %v", err)
			}
		})
	}
	weakenSignatures(t, home, staging)
	lookaside, err := ParseLookaside([]byte(conf))
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPuller(t, nil, func(c *Config) {
		c.Insecure, c.Credentials, c.Policy, c.Lookaside = []string{host}, auth, policy(public), lookaside
	})
	if _, err := p.Pull(t.Context(), host+"/team/app:signed"); !errors.Is(err, trust.ErrDenied) {
		t.Errorf("signed over SHA-1: got %v", err)
	}
}

// weakenSignatures signs what the store's signatures say again, over SHA-1.
func weakenSignatures(t *testing.T, home, store string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store, "team", "*", "signature-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no signatures in the store: %v", err)
	}
	for _, file := range files {
		plain := file + ".plain"
		gpg(t, home, "--output", plain, "--decrypt", file)
		gpg(t, home, "--digest-algo", "SHA1", "--weak-digest", "MD5", "--output", file, "--sign", plain)
	}
}
