// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack"
)

// A registry that lies about a whole image: each lie is one named error, and
// nothing is left in the store or known to the puller. TestLayerLies has the
// lies about a layer's bytes in more detail.
func TestHostileImage(t *testing.T) {
	keys := new(fakeKeys)
	tarball := someTar(t)
	good := func() testLayer { return gzipLayer(t, tarball) }
	lie := func(f func(*testLayer)) testImage {
		l := good()
		f(&l)
		return testImage{layers: []testLayer{plainLayer(tarOf(t, entry{name: "fine"})), l}}
	}
	doc := func(f func(manifest, config map[string]any)) testImage {
		return testImage{layers: []testLayer{good()}, spoil: f}
	}
	manyLayers := make([]map[string]any, maxLayers+1)
	for i := range manyLayers {
		manyLayers[i] = map[string]any{"mediaType": typeGzip, "digest": good().digest, "size": 1}
	}
	for _, tt := range []struct {
		name string
		img  testImage
		want error
	}{
		{"wrong digest", lie(func(l *testLayer) { l.digest = digestOf([]byte("other")) }), ErrDigest},
		{"short blob", lie(func(l *testLayer) { l.size++ }), ErrShortBlob},
		{"long blob", lie(func(l *testLayer) { l.size-- }), ErrLongBlob},
		{"negative size", lie(func(l *testLayer) { l.size = -1 }), ErrManifest},
		{"wrong DiffID", lie(func(l *testLayer) { l.diffID = digestOf(nil) }), ErrDiffID},
		{"garbage gzip", lie(func(l *testLayer) { *l = redigest(testLayer{typeGzip, []byte("garbage"), l.diffID, "", 0, nil}) }), ErrCompression},
		{"trailing bytes after the tar end", lie(func(l *testLayer) { *l = gzipLayer(t, append(bytes.Clone(tarball), 1)) }), unpack.ErrTrailing},
		{"tar ends before its stream, rest unread", lie(func(l *testLayer) {
			*l = flip(gzipLayer(t, append(bytes.Clone(tarball), make([]byte, 1<<20)...)), 40)
		}), ErrDigest},
		{"wrong MAC", lie(func(l *testLayer) {
			*l = l.encrypted(t, keys, func(e *encryption) { e.public["hmac"] = bytes.Repeat([]byte{1}, 32) })
		}), ErrMAC},
		{"encrypted without annotations", lie(func(l *testLayer) { l.mediaType += encryptedSuffix }), ErrEncryption},
		{"encrypted for someone else", lie(func(l *testLayer) { *l = l.encrypted(t, new(fakeKeys)) }), ErrKey},
		{"public nonce", lie(func(l *testLayer) {
			*l = l.encrypted(t, keys, func(e *encryption) { e.public["cipheroptions"] = e.Opts })
		}), ErrEncryption},
		{"unknown cipher", lie(func(l *testLayer) {
			*l = l.encrypted(t, keys, func(e *encryption) { e.public["cipher"] = "NULL" })
		}), ErrEncryption},
		{"unknown layer type", lie(func(l *testLayer) { l.mediaType = typeTar + "+xz" }), ErrUnsupported},
		{"digest with a path in it (CVE-2024-3727)", lie(func(l *testLayer) { l.digest = "sha256:../../../../etc/passwd" }), ErrManifest},
		{"upper-case digest", lie(func(l *testLayer) { l.digest = strings.ToUpper(l.digest) }), ErrUnsupported},
		{"unknown digest algorithm", lie(func(l *testLayer) { l.digest = "md5:d41d8cd98f00b204e9800998ecf8427e" }), ErrUnsupported},
		{"path escape", lie(func(l *testLayer) { *l = gzipLayer(t, tarOf(t, entry{name: "../../evil", body: "x"})) }), unpack.ErrEscape},
		{"one diff_id too many", doc(func(_, c map[string]any) {
			c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []string{good().diffID, good().diffID}}
		}), ErrManifest},
		{"no diff_ids", doc(func(_, c map[string]any) { delete(c, "rootfs") }), ErrManifest},
		{"config of another platform", doc(func(_, c map[string]any) { c["os"] = "windows" }), ErrPlatform},
		{"config without a platform", doc(func(_, c map[string]any) { delete(c, "architecture") }), ErrPlatform},
		{"index and manifest in one", doc(func(m, _ map[string]any) { m["manifests"] = []any{} }), ErrManifest},
		{"schema 1", doc(func(m, _ map[string]any) { m["schemaVersion"] = 1 }), ErrUnsupported},
		{"mediaType of an index", doc(func(m, _ map[string]any) { m["mediaType"] = typeOCIIndex }), ErrManifest},
		{"an artifact", doc(func(m, _ map[string]any) {
			m["config"] = map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": digestOf([]byte("{}")), "size": 2}
		}), ErrUnsupported},
		{"huge config", doc(func(m, _ map[string]any) {
			m["config"] = map[string]any{"mediaType": typeOCIConfig, "digest": digestOf(nil), "size": maxDocument + 1}
		}), ErrTooLarge},
		{"absent config", doc(func(m, _ map[string]any) {
			m["config"] = map[string]any{"mediaType": typeOCIConfig, "digest": digestOf([]byte("absent")), "size": 6}
		}), ErrNotFound},
		{"too many layers", doc(func(m, _ map[string]any) { m["layers"] = manyLayers }), ErrTooLarge},
		{"manifest over its cap", doc(func(m, _ map[string]any) {
			m["annotations"] = map[string]string{"x": strings.Repeat("x", maxDocument)}
		}), ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistryFake(t)
			r.put(t, "v1", tt.img)
			p := newTestPuller(t, r, func(c *Config) { c.Unwrapper = keys })
			err := mustFail(t, p, r.ref("v1"), tt.want)
			if n := strings.Count(err.Error(), string(asFault(tt.want))); asFault(tt.want) != "" && n != 1 {
				t.Errorf("the error names its fault %d times: %v", n, err)
			}
			wantEmpty(t, p)
		})
	}
}

func asFault(err error) Fault {
	f, _ := errors.AsType[Fault](err)
	return f
}

// JSON that two parsers could read differently is refused, wherever it stands.
func TestHostileJSON(t *testing.T) {
	digest := digestOf([]byte("x"))
	config := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, typeOCIConfig, digest)
	for name, raw := range map[string]string{
		"duplicate layers":             `{"schemaVersion":2,"config":` + config + `,"layers":[],"layers":[]}`,
		"duplicate in a descriptor":    `{"schemaVersion":2,"config":{"size":1,"size":1},"layers":[]}`,
		"duplicate in an unknown part": `{"schemaVersion":2,"config":` + config + `,"layers":[],"x":{"a":1,"a":2}}`,
		"duplicate annotation":         `{"schemaVersion":2,"config":` + config + `,"annotations":{"a":"1","a":"2"},"layers":[]}`,
		"escaped duplicate":            `{"schemaVersion":2,"config":` + config + `,"layers":[],"l\u0061yers":[]}`,
		"other case":                   `{"SchemaVersion":2,"Config":` + config + `,"Layers":[]}`,
		"invalid UTF-8":                `{"schemaVersion":2,"config":` + config + `,"layers":[],"x":"` + "\xff" + `"}`,
		"trailing data":                `{"schemaVersion":2,"config":` + config + `,"layers":[]}{}`,
		"size as a string":             `{"schemaVersion":2,"config":{"mediaType":"x","digest":"` + digest + `","size":"1"},"layers":[]}`,
		"size with a fraction":         `{"schemaVersion":2,"config":{"mediaType":"x","digest":"` + digest + `","size":1.5},"layers":[]}`,
		"size too large":               `{"schemaVersion":2,"config":{"mediaType":"x","digest":"` + digest + `","size":9223372036854775808},"layers":[]}`,
		"no size":                      `{"schemaVersion":2,"config":{"mediaType":"x","digest":"` + digest + `"},"layers":[]}`,
		"null":                         `null`,
		"an array":                     `[]`,
		"nothing":                      ``,
		"deep nesting":                 strings.Repeat("[", 100000),
	} {
		if _, err := parseDocument([]byte(raw), hashOf([]byte(raw))); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrManifest)
		}
	}
	good := `{"schemaVersion":2,"config":` + config + `,"layers":[],"x":{"unknown":true}}`
	if _, err := parseDocument([]byte(good), hashOf(nil)); err != nil {
		t.Errorf("unknown members: %v", err)
	}
}

// A registry that changes the manifest between two requests changes nothing:
// a digest pins the bytes, and a tag is read once a pull.
func TestHostileManifestChanges(t *testing.T) {
	r := newRegistryFake(t)
	first := r.put(t, "v1", someImage(t))
	second := r.put(t, "v2", testImage{layers: []testLayer{plainLayer(tarOf(t, entry{name: "evil"}))}})
	p := newTestPuller(t, r)
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/manifests/sha256:") {
			w.Header().Set("Docker-Content-Digest", digestOf(first))
			w.Write(second)
			return true
		}
		return false
	}
	mustFail(t, p, r.ref(digestOf(first)), ErrDigest)
	wantEmpty(t, p)
	n := 0
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, "/manifests/v1") {
			if n++; n > 1 {
				w.Write(second)
				return true
			}
		}
		return false
	}
	if img := mustPull(t, p, r.ref("v1")); img.Digest != hashOf(first) || n != 1 {
		t.Errorf("got %s after %d requests for the tag, want %s after 1", img.Digest, n, digestOf(first))
	}
}

// Each answer of a registry has its name; only those that ask for patience are
// tried again.
func TestHostileStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		after  string
		want   error
		tries  int
	}{
		{http.StatusUnauthorized, "", ErrUnauthorized, 1},
		{http.StatusForbidden, "", ErrUnauthorized, 1},
		{http.StatusNotFound, "", ErrNotFound, 1},
		{http.StatusInternalServerError, "", ErrRegistry, 1},
		{http.StatusNoContent, "", ErrRegistry, 1},
		{http.StatusPartialContent, "", ErrRegistry, 1},
		{http.StatusTeapot, "", ErrRegistry, 1},
		{http.StatusBadGateway, "", ErrRegistry, 4},
		{http.StatusTooManyRequests, "", ErrRegistry, 4},
		{http.StatusServiceUnavailable, "0", ErrRegistry, 4},
		{http.StatusTooManyRequests, "86400", ErrRegistry, 1},
		{http.StatusTooManyRequests, "-5", ErrRegistry, 4},
		{http.StatusServiceUnavailable, "Wed, 21 Oct 2115 07:28:00 GMT", ErrRegistry, 4},
	} {
		for _, part := range []string{"/manifests/", "/blobs/"} {
			t.Run(fmt.Sprint(part, tt.status, tt.after), func(t *testing.T) {
				r := newRegistryFake(t)
				r.put(t, "v1", someImage(t))
				tries := 0
				r.handle = func(w http.ResponseWriter, req *http.Request) bool {
					if !strings.Contains(req.URL.Path, part) {
						return false
					}
					tries++
					if tt.after != "" {
						w.Header().Set("Retry-After", tt.after)
					}
					w.WriteHeader(tt.status)
					return true
				}
				p := newTestPuller(t, r)
				mustFail(t, p, r.ref("v1"), tt.want)
				if tries != tt.tries {
					t.Errorf("got %d requests, want %d", tries, tt.tries)
				}
				wantEmpty(t, p)
			})
		}
	}
}

// TestRepositoryPathLeavesNoScope attacks the policy by a name that begins like a trusted one and goes up again: scopes are
// compared as text, and what serves HTTP cleans the path and points to the repository that was meant.
func TestRepositoryPathLeavesNoScope(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		clean := path.Clean(req.URL.Path)
		if strings.Count(clean, "/") > 1 && clean != req.URL.Path {
			http.Redirect(w, req, clean, http.StatusMovedPermanently)
			return true
		}
		return false
	}
	policy := policyOf(t, `{"default":[{"type":"reject"}],"transports":{"docker":{"`+r.host()+`/trusted":[{"type":"insecureAcceptAnything"}]}}}`)
	p := newTestPuller(t, r, func(c *Config) { c.Policy = policy })
	mustPull(t, p, r.host()+"/trusted/app:v1")
	r.requests = nil
	for _, name := range []string{
		"/trusted/../evil/app:v1", "/trusted/./../evil/app:v1", "/trusted//app:v1", "/trusted/app/:v1", "/trusted/.../app:v1", "/trusted/..", "/trusted/-app:v1", "/trusted/app_:v1",
		"/trusted/app:..", "/trusted/app:.", "/trusted/app:-v1",
	} {
		if img, err := p.Pull(t.Context(), r.host()+name); !errors.Is(err, ErrReference) {
			t.Errorf("%s: got %v, %v, want %v", name, img, err, ErrReference)
		}
	}
	if len(r.requests) > 0 {
		t.Errorf("asked for %q", r.requests)
	}
	// Layouts are judged under a name that is none of a registry's.
	if _, err := p.Pull(t.Context(), layoutName+":v1"); !errors.Is(err, ErrReference) {
		t.Errorf("a registry with the layouts' name: %v", err)
	}
}

// TestLayoutFileBecomesFIFO attacks the time between the look at a layout's file and its opening, on a directory that the
// host shares: nobody ever writes to the FIFO, and a pull that waits for that cannot be ended.
func TestLayoutFileBecomesFIFO(t *testing.T) {
	dir := t.TempDir()
	fifo, name := filepath.Join(dir, "fifo"), filepath.Join(dir, "oci-layout")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(name, []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := &layout{dir: root}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		for range 20_000 {
			switch raw, err := l.read("oci-layout"); {
			case err == nil && string(raw) != "{}":
				done <- fmt.Errorf("read %q", raw)
				return
			case err != nil && !errors.Is(err, ErrManifest):
				done <- err
				return
			}
		}
		done <- nil
	}()
	for end := time.After(30 * time.Second); ; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		case <-end:
			// So that the reader ends, too.
			if w, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
				defer w.Close()
			}
			t.Fatal("it waits for a writer")
		default:
			if err := unix.Renameat2(unix.AT_FDCWD, fifo, unix.AT_FDCWD, name, unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
		}
	}
}
