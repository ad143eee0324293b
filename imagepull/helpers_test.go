// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/casemate/casemate/imagepull/trust"
)

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func hashOf(b []byte) v1.Hash {
	h, err := parseDigest(digestOf(b))
	if err != nil {
		panic(err)
	}
	return h
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers sets owners and trusted attributes: needs root")
	}
}

// entry is one entry of a layer.
type entry struct {
	name, body, link string
	typ              byte
	mode             int64
	uid              int
	major, minor     int64
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Devmajor: e.major, Devminor: e.minor, Size: int64(len(e.body)), ModTime: time.Unix(1700000000, 0)}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

const (
	typeTar        = "application/vnd.oci.image.layer.v1.tar"
	typeGzip       = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeZstd       = "application/vnd.oci.image.layer.v1.tar+zstd"
	typeDockerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// testLayer is a layer as a manifest and a config describe it. Tests change it
// to make it lie.
type testLayer struct {
	mediaType   string
	blob        []byte
	diffID      string
	digest      string // of blob, unless a test says otherwise
	size        int64  // of blob, unless a test says otherwise
	annotations map[string]string
}

func newTestLayer(mediaType string, blob, tarball []byte) testLayer {
	return testLayer{mediaType: mediaType, blob: blob, diffID: digestOf(tarball), digest: digestOf(blob), size: int64(len(blob))}
}

func plainLayer(tarball []byte) testLayer { return newTestLayer(typeTar, tarball, tarball) }

func gzipLayer(t testing.TB, tarball []byte) testLayer {
	return newTestLayer(typeGzip, gzipOf(t, tarball), tarball)
}

func zstdLayer(t testing.TB, tarball []byte) testLayer {
	return newTestLayer(typeZstd, zstdOf(t, tarball), tarball)
}

// encryption is what the tiny encryptor did, for tests to spoil.
type encryption struct {
	Key    []byte            `json:"symkey"`
	Digest string            `json:"digest"`
	Opts   map[string][]byte `json:"cipheroptions"`
	public map[string]any
}

// encrypted encrypts a layer as ocicrypt does, wrapped by fakeKeys.
func (l testLayer) encrypted(t testing.TB, keys *fakeKeys, spoil ...func(*encryption)) testLayer {
	t.Helper()
	e := &encryption{Key: make([]byte, 32), Digest: l.digest, Opts: map[string][]byte{"nonce": make([]byte, 16)}}
	rand.Read(e.Key)
	rand.Read(e.Opts["nonce"])
	block, err := aes.NewCipher(e.Key)
	if err != nil {
		t.Fatal(err)
	}
	blob := make([]byte, len(l.blob))
	cipher.NewCTR(block, e.Opts["nonce"]).XORKeyStream(blob, l.blob)
	mac := hmac.New(sha256.New, e.Key)
	mac.Write(blob)
	e.public = map[string]any{"cipher": layerCipher, "hmac": mac.Sum(nil), "cipheroptions": map[string]any{}}
	for _, f := range spoil {
		f(e)
	}
	out := newTestLayer(l.mediaType+encryptedSuffix, blob, nil)
	out.diffID = l.diffID
	out.annotations = map[string]string{
		annotationPubOpts: base64.StdEncoding.EncodeToString(marshal(t, e.public)),
		annotationKeys + "provider.attestation-agent": base64.StdEncoding.EncodeToString(keys.wrap(marshal(t, e))),
	}
	return out
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// fakeKeys is a KeyUnwrapper whose packets are names of what it remembers.
type fakeKeys struct {
	mu      sync.Mutex
	packets map[string][]byte
	deny    bool
	calls   int
}

var errNoKey = errors.New("no key for this packet")

func (k *fakeKeys) wrap(plain []byte) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.packets == nil {
		k.packets = map[string][]byte{}
	}
	name := "packet " + digestOf(plain)
	k.packets[name] = plain
	return []byte(name)
}

func (k *fakeKeys) Unwrap(_ context.Context, packet []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	plain, ok := k.packets[string(packet)]
	if !ok || k.deny {
		return nil, errNoKey
	}
	return bytes.Clone(plain), nil
}

// testImage is a whole image; its documents are made by put.
type testImage struct {
	layers   []testLayer
	config   map[string]any // the "config" member
	platform [2]string      // os, architecture
	spoil    func(manifest, config map[string]any)
}

// registryFake is a registry that does what a test tells it.
type registryFake struct {
	*httptest.Server
	mu        sync.Mutex
	manifests map[string][]byte // by tag or digest
	types     map[string]string
	blobs     map[string][]byte
	requests  []string
	// handle, when set, sees each request first and reports whether it answered.
	handle func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistryFake(t testing.TB) *registryFake {
	t.Helper()
	r := &registryFake{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *registryFake) host() string { return r.Listener.Addr().String() }

// ref is the reference of this registry's one repository.
func (r *registryFake) ref(identifier string) string {
	if strings.Contains(identifier, ":") {
		return r.host() + "/app@" + identifier
	}
	return r.host() + "/app:" + identifier
}

func (r *registryFake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	handle := r.handle
	r.mu.Unlock()
	if handle != nil && handle(w, req) {
		return
	}
	r.serve(w, req)
}

func (r *registryFake) serve(w http.ResponseWriter, req *http.Request) {
	kind, name := "", ""
	if parts := strings.Split(req.URL.Path, "/"); len(parts) > 2 {
		kind, name = parts[len(parts)-2], parts[len(parts)-1]
	}
	r.mu.Lock()
	manifest, isManifest := r.manifests[name]
	blob, isBlob := r.blobs[name]
	r.mu.Unlock()
	switch {
	case req.URL.Path == "/v2/":
	case kind == "manifests" && isManifest:
		w.Write(manifest)
	case kind == "blobs" && isBlob:
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(blob))
	default:
		http.Error(w, `{"errors":[{"code":"UNKNOWN"}]}`, http.StatusNotFound)
	}
}

func (r *registryFake) blobRequests() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.requests {
		if strings.Contains(s, "/blobs/") {
			n++
		}
	}
	return n
}

func (r *registryFake) putBlob(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digestOf(b)] = b
}

func (r *registryFake) putManifest(raw []byte, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range append(names, digestOf(raw)) {
		r.manifests[n] = raw
	}
}

// put stores an image under a tag and returns its manifest.
func (r *registryFake) put(t testing.TB, tag string, img testImage) []byte {
	t.Helper()
	manifest, blobs := img.build(t)
	for digest, b := range blobs {
		r.mu.Lock()
		r.blobs[digest] = b
		r.mu.Unlock()
	}
	r.putManifest(manifest, tag)
	return manifest
}

// build returns the manifest and the blobs, by the digests it gives them.
func (img testImage) build(t testing.TB) (manifest []byte, blobs map[string][]byte) {
	t.Helper()
	blobs = map[string][]byte{}
	diffIDs, layers := []string{}, []map[string]any{}
	for _, l := range img.layers {
		diffIDs = append(diffIDs, l.diffID)
		d := map[string]any{"mediaType": l.mediaType, "digest": l.digest, "size": l.size}
		if l.annotations != nil {
			d["annotations"] = l.annotations
		}
		layers = append(layers, d)
		blobs[l.digest] = l.blob
	}
	if img.platform[0] == "" {
		img.platform = [2]string{"linux", runtime.GOARCH}
	}
	config := map[string]any{
		"os": img.platform[0], "architecture": img.platform[1], "config": img.config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": typeOCIManifest, "layers": layers}
	if img.spoil != nil {
		img.spoil(m, config)
	}
	rawConfig := marshal(t, config)
	blobs[digestOf(rawConfig)] = rawConfig
	if m["config"] == nil {
		m["config"] = map[string]any{"mediaType": typeOCIConfig, "digest": digestOf(rawConfig), "size": len(rawConfig)}
	}
	return marshal(t, m), blobs
}

func acceptAnything(t testing.TB) *trust.Policy {
	t.Helper()
	return policyOf(t, `{"default":[{"type":"insecureAcceptAnything"}]}`)
}

func policyOf(t testing.TB, text string) *trust.Policy {
	t.Helper()
	p, err := trust.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newTestPuller makes a puller that trusts the registry's plain HTTP, accepts
// anything and waits for nothing; change changes its configuration.
func newTestPuller(t testing.TB, r *registryFake, change ...func(*Config)) *Puller {
	t.Helper()
	needRoot(t)
	cfg := Config{Store: filepath.Join(t.TempDir(), "store"), Form: testForm, Policy: acceptAnything(t), StallTimeout: 5 * time.Second}
	if r != nil {
		cfg.Insecure = []string{r.host()}
	}
	for _, f := range change {
		f(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.retrier.first, p.retrier.longest = time.Millisecond, 2*time.Second
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// leftovers lists what a store holds besides its fixed directories.
func leftovers(t testing.TB, p *Puller) (names []string) {
	t.Helper()
	for _, dir := range []string{"layers", "staging"} {
		entries, err := os.ReadDir(p.store.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

// wantEmpty fails unless the failed pull left nothing: no directory, no layer in
// memory, no image.
func wantEmpty(t testing.TB, p *Puller) {
	t.Helper()
	if left := leftovers(t, p); len(left) > 0 {
		t.Errorf("left in the store: %q", left)
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if n := len(p.store.layers) + len(p.store.building); n != 0 {
		t.Errorf("the store knows %d layers", n)
	}
	if len(p.images) != 0 {
		t.Errorf("the puller knows %d images", len(p.images))
	}
}

func wantFile(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if string(got) != want {
		t.Errorf("%s: got %q, want %q", path, got, want)
	}
}

func someTar(t testing.TB) []byte {
	t.Helper()
	return tarOf(t, entry{name: "etc/", typ: tar.TypeDir}, entry{name: "etc/motd", body: "hello\n"},
		entry{name: "data", body: strings.Repeat("0123456789abcdef", 64<<10)})
}

func mustFail(t testing.TB, p *Puller, reference string, want error) error {
	t.Helper()
	img, err := p.Pull(t.Context(), reference)
	if err == nil {
		t.Fatalf("pulled %s, want %q", img.Manifest, want)
	}
	if !errors.Is(err, want) {
		t.Errorf("got error %q, want %q", err, want)
	}
	return err
}

func mustPull(t testing.TB, p *Puller, reference string) *Image {
	t.Helper()
	img, err := p.Pull(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
