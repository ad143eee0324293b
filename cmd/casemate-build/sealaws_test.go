// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/aws"
)

// fakeAWS wraps data keys by turning every bit, and binds them to nothing but the key's name.
func fakeAWS(t *testing.T) (server *httptest.Server, asked *[]string) {
	t.Helper()
	asked = new([]string)
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Key               string `json:"KeyId"`
			Secret            string `json:"SecretId"`
			CiphertextBlob    []byte
			EncryptionContext map[string]string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		*asked = append(*asked, r.Header.Get("X-Amz-Target")+" "+in.Key+in.Secret+" "+in.EncryptionContext["workload"])
		turn := func(b []byte) []byte {
			out := bytes.Clone(b)
			for i := range out {
				out[i] ^= 0xff
			}
			return out
		}
		plain := bytes.Repeat([]byte{7}, 32)
		answer := map[string]any{"Plaintext": plain, "CiphertextBlob": turn(plain), "SecretString": "of Amazon"}
		if in.CiphertextBlob != nil {
			answer["Plaintext"] = turn(in.CiphertextBlob)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// What the owner seals with Amazon's services the guest opens, under a key that it has measured.
func TestSealedWithAWS(t *testing.T) {
	server, asked := fakeAWS(t)
	dir := t.TempDir()
	prefix := filepath.Join(dir, "owner")
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"keygen", "--out", prefix}, streams{out: &errs, err: &errs}); code != exitDone {
		t.Fatalf("keygen: %s", &errs)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	const canary = "CANARY"
	for name, text := range map[string]string{"secret": "hunter2", "ca": string(ca), "bad": `{"secret_access_key":"` + canary + `"}`,
		"credential": `{"access_key_id":"AKIDEXAMPLE","secret_access_key":"` + canary + `"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	seal := func(args ...string) (int, []byte) {
		var out bytes.Buffer
		errs.Reset()
		code := run(t.Context(), append([]string{"seal", "--key", prefix + ".key", "--key-id", "owner"}, args...), streams{out: &out, err: &errs})
		return code, bytes.TrimSpace(out.Bytes())
	}
	envelope := []string{file("secret"), "--kms-key", "alias/app", "--aws-region", "eu-central-1", "--kms-url", server.URL, "--aws-ca", file("ca"),
		"--encryption-context", "workload=web", "--jwk-out", file("jwk"), "--aws-credential-file"}
	texts := map[string][]byte{}
	for want, args := range map[string][]string{
		"hunter2":   append(envelope, file("credential")),
		"of Amazon": {"aws://app/db", "--aws-region", "eu-central-1", "--version-stage", "AWSCURRENT"},
	} {
		code, text := seal(args...)
		if code != exitDone || bytes.Contains(text, []byte("hunter2")) {
			t.Fatalf("%q: exit code %d, %s: %s", args, code, text, &errs)
		}
		texts[want] = text
	}
	jwk, err := os.ReadFile(file("jwk"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyprovider.ParseVerificationKey(jwk)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client, err := aws.New(aws.Config{Region: "eu-central-1", KMS: server.URL, Secrets: server.URL, Roots: roots,
		Credential: func(context.Context) ([]byte, error) { return os.ReadFile(file("credential")) }})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	guest := &keyprovider.Unsealer{Keys: secrets{}, Measured: map[string]*ecdsa.PublicKey{"owner": key},
		KMS: map[string]keyprovider.KMS{"aws": client}, Stores: map[string]keyprovider.SecretStore{"aws": client}}
	for want, text := range texts {
		if got, err := guest.Unseal(t.Context(), text); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if len(*asked) != 3 || (*asked)[0] != "TrentService.GenerateDataKey alias/app web" {
		t.Errorf("asked %q", *asked)
	}
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"no region":           {[]string{"aws://app/db"}, exitUsage},
		"region of nothing":   {[]string{"kbs:///a/b/c", "--aws-region", "r"}, exitUsage},
		"two KMS":             {append([]string{"--transit-key", "k", "--vault", "https://v"}, append(envelope, file("credential"))...), exitUsage},
		"a secret and a key":  {[]string{"aws://app/db", "--aws-region", "r", "--kms-key", "k"}, exitUsage},
		"context of a secret": {[]string{"aws://app/db", "--aws-region", "r", "--encryption-context", "a=b"}, exitUsage},
		"version of a file":   {[]string{"kbs:///a/b/c", "--version-id", "x"}, exitUsage},
		"a name with quotes":  {[]string{`aws://a"b`, "--aws-region", "r"}, exitFailed},
		"no credential":       {append(envelope, file("none")), exitFailed},
		"half a credential":   {append(envelope, file("bad")), exitFailed},
		"key id of a path":    {[]string{"kbs:///a/b/c", "--key-id", "a/b"}, exitFailed},
	} {
		if code, text := seal(c.args...); code != c.code || len(text) > 0 || bytes.Contains(errs.Bytes(), []byte(canary)) {
			t.Errorf("%s: exit code %d, %s: %s", name, code, text, &errs)
		}
	}
}
