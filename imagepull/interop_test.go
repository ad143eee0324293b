// SPDX-License-Identifier: Apache-2.0

//go:build interop

package imagepull

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// realRegistry starts Debian's docker-registry on loopback, behind a password.
func realRegistry(t *testing.T) (host string) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	hash, err := bcrypt.GenerateFromPassword([]byte(testPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwords := write("htpasswd", fmt.Sprintf("%s:%s\n", testUser, hash))
	cmd := exec.Command("docker-registry", "serve", write("config.yml", fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s/data}}
http: {addr: %q}
auth: {htpasswd: {realm: test, path: %s}}
`, dir, host, passwords)))
	if err := cmd.Start(); err != nil {
		t.Skipf("starting docker-registry: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", host); err == nil {
			c.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer")
		}
	}
}

// Images that skopeo pushed to a real registry, in OCI's and in Docker's format
// and recompressed on the way, come out as they went in.
func TestInteropRegistry(t *testing.T) {
	needRoot(t)
	host := realRegistry(t)
	layout := t.TempDir()
	img := someImage(t)
	img.layers[1] = gzipLayer(t, tarOf(t, entry{name: "both", body: "upper"})) // Docker's format has no zstd
	writeLayout(t, layout, "v1", img)
	credentials := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(testUser+":"+testPassword)))
	auth, err := ParseAuthFile([]byte(credentials))
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPuller(t, nil, func(c *Config) { c.Insecure, c.Credentials = []string{host}, auth })
	// skopeo remembers which compressed forms of a layer a registry has and reuses them,
	// also where the format does not allow them: zstd comes last.
	for _, form := range []struct {
		name string
		args []string
	}{
		{"docker", []string{"--format", "v2s2"}},
		{"oci", []string{"--format", "oci"}},
		{"zstd", []string{"--format", "oci", "--dest-compress-format", "zstd"}},
	} {
		name, args := form.name, form.args
		args = append([]string{"copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", testUser + ":" + testPassword}, args...)
		out, err := exec.CommandContext(t.Context(), "skopeo", append(args, "oci:"+layout+":v1", "docker://"+host+"/team/app:"+name)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: skopeo: %v: %s", name, err, out)
			continue
		}
		target := mountImage(t, mustPull(t, p, host+"/team/app:"+name))
		for path, want := range map[string]string{"base": "base", "both": "upper", "top": "top"} {
			wantFile(t, filepath.Join(target, path), want)
		}
	}
	anonymous := newTestPuller(t, nil, func(c *Config) { c.Insecure = []string{host} })
	mustFail(t, anonymous, host+"/team/app:oci", ErrUnauthorized)
	mustFail(t, p, host+"/team/app:absent", ErrNotFound)
}
