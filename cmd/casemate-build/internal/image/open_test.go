// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

func randomImage(t *testing.T) *Content {
	t.Helper()
	img, err := random.Image(64, 2)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return &Content{Image: img, Descriptor: v1.Descriptor{Digest: digest}}
}

func randomIndex(t *testing.T) *Content {
	t.Helper()
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return &Content{Index: index, Descriptor: v1.Descriptor{Digest: digest}}
}

// startRegistry serves an empty registry over plain HTTP, through wrap.
func startRegistry(t *testing.T, wrap func(http.Handler) http.Handler) (host string) {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		handler = wrap(handler)
	}
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func mustParse(t *testing.T, c *Client, text string) Location {
	t.Helper()
	l, err := c.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWriteAndOpen(t *testing.T) {
	host := startRegistry(t, nil)
	c := New(Config{Insecure: []string{host}})
	for name, content := range map[string]*Content{"image": randomImage(t), "index": randomIndex(t)} {
		for _, where := range []string{"docker://" + host + "/" + name + ":1", "oci:" + t.TempDir() + ":1", "oci:" + filepath.Join(t.TempDir(), "new")} {
			l := mustParse(t, c, where)
			if err := c.Write(t.Context(), l, content); err != nil {
				t.Errorf("%s to %s: %v", name, where, err)
				continue
			}
			got, err := c.Open(t.Context(), l)
			if err != nil || got.Descriptor.Digest != content.Descriptor.Digest {
				t.Errorf("%s from %s: got %+v, %v, want %s", name, where, got, err, content.Descriptor.Digest)
			}
		}
	}
}

func TestOpenFindsNothing(t *testing.T) {
	host := startRegistry(t, nil)
	c := New(Config{Insecure: []string{host}})
	dir := t.TempDir()
	if err := c.Write(t.Context(), mustParse(t, c, "oci:"+dir+":1"), randomImage(t)); err != nil {
		t.Fatal(err)
	}
	for where, notFound := range map[string]bool{
		"docker://" + host + "/absent:1":     true,
		"oci:" + dir + ":2":                  true,
		"oci:" + dir + "@sha256:" + hexA:     true,
		"oci:" + t.TempDir():                 false, // no layout at all
		"docker://127.0.0.1:1/unreachable:1": false,
	} {
		_, err := c.Open(t.Context(), mustParse(t, c, where))
		if err == nil || IsNotFound(err) != notFound {
			t.Errorf("%s: got %v, IsNotFound %v, want %v", where, err, IsNotFound(err), notFound)
		}
	}
}

func TestLayoutWithSeveralImages(t *testing.T) {
	c := New(Config{})
	dir := t.TempDir()
	one, two := randomImage(t), randomImage(t)
	signature := "sha256-" + one.Descriptor.Digest.Hex + ".sig"
	for tag, content := range map[string]*Content{"one": one, signature: two} {
		if err := c.Write(t.Context(), mustParse(t, c, "oci:"+dir+":"+tag), content); err != nil {
			t.Fatal(err)
		}
	}
	// A signature is no image to choose from.
	got, err := c.Open(t.Context(), mustParse(t, c, "oci:"+dir))
	if err != nil || got.Descriptor.Digest != one.Descriptor.Digest {
		t.Errorf("got %+v, %v, want %s", got, err, one.Descriptor.Digest)
	}
	// A tag moves.
	if err := c.Write(t.Context(), mustParse(t, c, "oci:"+dir+":one"), two); err != nil {
		t.Fatal(err)
	}
	got, err = c.Open(t.Context(), mustParse(t, c, "oci:"+dir+":one"))
	if err != nil || got.Descriptor.Digest != two.Descriptor.Digest {
		t.Errorf("got %+v, %v, want %s", got, err, two.Descriptor.Digest)
	}
	if err := c.Write(t.Context(), mustParse(t, c, "oci:"+dir+":three"), one); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), mustParse(t, c, "oci:"+dir)); err == nil || !strings.Contains(err.Error(), "one, three") {
		t.Errorf("two images, none named: got %v, want the tags", err)
	}
	if err := c.Write(t.Context(), mustParse(t, c, "oci:"+dir), one); err == nil {
		t.Error("wrote without a name beside others")
	}
}

func TestCheckTargetRefuses(t *testing.T) {
	c := New(Config{})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{
		"oci:" + full, "oci:" + full + ":1", "oci:x@sha256:" + hexA, "docker://registry.example/a@sha256:" + hexA,
	} {
		if err := CheckTarget(mustParse(t, c, where)); err == nil {
			t.Errorf("%s: want an error", where)
		}
	}
}

// Without being told so, the client speaks no plain HTTP, not even to the
// loopback addresses for which go-containerregistry would.
func TestPlainHTTPNeedsToBeNamed(t *testing.T) {
	reached := false
	host := startRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached = true
			next.ServeHTTP(w, r)
		})
	})
	c := New(Config{Insecure: []string{"another.example"}})
	l := mustParse(t, c, "docker://"+host+"/app:1")
	if _, err := c.Open(t.Context(), l); err == nil || !strings.Contains(err.Error(), "plain HTTP to "+host+" refused") {
		t.Errorf("got %v, want a refusal of plain HTTP", err)
	}
	if err := c.Write(t.Context(), l, randomImage(t)); err == nil {
		t.Error("wrote over plain HTTP")
	}
	if reached {
		t.Error("a request was sent over plain HTTP")
	}
}

// A registry named insecure cannot send the client to another host over plain
// HTTP.
func TestRedirectToPlainHTTP(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	host := startRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	c := New(Config{Insecure: []string{host}})
	if _, err := c.Open(t.Context(), mustParse(t, c, "docker://"+host+"/app:1")); err == nil || reached {
		t.Errorf("got %v, reached %v, want a refusal", err, reached)
	}
}

// A registry that lies about a manifest is found out: by its digest where the
// user gave one, by the parser otherwise.
func TestLyingRegistry(t *testing.T) {
	lie := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(bytes.Replace([]byte(goodManifest), []byte(`"layers"`), []byte(`"layers":[],"layers"`), 1))
		})
	}
	host := startRegistry(t, lie)
	c := New(Config{Insecure: []string{host}})
	for _, where := range []string{"app:1", "app@sha256:" + hexA} {
		if _, err := c.Open(t.Context(), mustParse(t, c, "docker://"+host+"/"+where)); err == nil {
			t.Errorf("%s: want an error", where)
		}
	}
}

func TestLyingLayout(t *testing.T) {
	c := New(Config{})
	dir := t.TempDir()
	content := randomImage(t)
	l := mustParse(t, c, "oci:"+dir+":1")
	if err := c.Write(t.Context(), l, content); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, "blobs", "sha256", content.Descriptor.Digest.Hex)
	raw, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for name, altered := range map[string][]byte{
		"altered": bytes.Replace(raw, []byte(`"schemaVersion":2`), []byte(`"schemaversion":2`), 1),
		"longer":  append(bytes.Clone(raw), ' '),
		"empty":   nil,
	} {
		if err := os.WriteFile(manifest, altered, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Open(t.Context(), l); err == nil {
			t.Errorf("%s manifest: want an error", name)
		}
	}
}
