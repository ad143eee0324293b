// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/imagepull/trust"
)

func someImage(t testing.TB) testImage {
	t.Helper()
	return testImage{
		layers: []testLayer{
			gzipLayer(t, tarOf(t, entry{name: "base", body: "base"}, entry{name: "both", body: "lower"})),
			zstdLayer(t, tarOf(t, entry{name: "both", body: "upper"})),
			plainLayer(tarOf(t, entry{name: "top", body: "top"})),
		},
		config: map[string]any{"Env": []string{"A=b"}, "Cmd": []string{"/top"}, "User": "7:8", "WorkingDir": "/w"},
	}
}

func TestPull(t *testing.T) {
	r := newRegistryFake(t)
	manifest := r.put(t, "v1", someImage(t))
	p := newTestPuller(t, r)
	for _, identifier := range []string{"v1", digestOf(manifest)} {
		img := mustPull(t, p, r.ref(identifier))
		if img.Digest != hashOf(manifest) || img.Manifest != img.Digest || img.Reference != r.ref(identifier) {
			t.Errorf("got %s, manifest %s, reference %s", img.Digest, img.Manifest, img.Reference)
		}
		if len(img.Layers) != 3 || img.Config.Cmd[0] != "/top" || img.Config.User != "7:8" || img.Platform.OS != "linux" {
			t.Fatalf("got %+v", img)
		}
		wantFile(t, filepath.Join(img.Layers[0], "both"), "lower")
		wantFile(t, filepath.Join(img.Layers[1], "both"), "upper")
		wantFile(t, filepath.Join(img.Layers[2], "top"), "top")
	}
	if n := r.blobRequests(); n != 5 {
		t.Errorf("got %d blob requests, want 5: 3 layers once and the config twice", n)
	}
	if left := leftovers(t, p); len(left) != 3 {
		t.Errorf("store holds %q, want 3 layers", left)
	}
}

func TestPullLayout(t *testing.T) {
	dir := t.TempDir()
	first := writeLayout(t, dir, "a", someImage(t))
	p := newTestPuller(t, nil)
	for _, ref := range []string{"oci:" + dir, "oci:" + dir + ":a"} {
		if img := mustPull(t, p, ref); img.Digest != hashOf(first) {
			t.Errorf("%s: got %s, want %s", ref, img.Digest, digestOf(first))
		}
	}
	mustFail(t, p, "oci:"+dir+":other", ErrNotFound)
	writeLayout(t, dir, "b", testImage{})
	mustFail(t, p, "oci:"+dir, ErrReference) // two images, none named
	mustPull(t, p, "oci:"+dir+":b")
	mustFail(t, p, "oci:", ErrReference)
	if _, err := p.Pull(t.Context(), "oci:"+filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v", err, os.ErrNotExist)
	}
}

// writeLayout adds an image to an OCI layout directory and returns its manifest.
func writeLayout(t testing.TB, dir, tag string, img testImage) []byte {
	t.Helper()
	manifest, blobs := img.build(t)
	blobs[digestOf(manifest)] = manifest
	write := func(path string, b []byte) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for digest, b := range blobs {
		write("blobs/"+strings.Replace(digest, ":", "/", 1), b)
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	entry := map[string]any{
		"mediaType": typeOCIManifest, "digest": digestOf(manifest), "size": len(manifest),
		"annotations": map[string]string{"org.opencontainers.image.ref.name": tag},
	}
	index := map[string]any{"schemaVersion": 2, "manifests": []any{entry}}
	if old, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil {
		var was struct {
			Manifests []any `json:"manifests"`
		}
		if err := decode(old, &was); err != nil {
			t.Fatal(err)
		}
		index["manifests"] = append(was.Manifests, entry)
	}
	write("index.json", marshal(t, index))
	return manifest
}

func TestPullIndex(t *testing.T) {
	r := newRegistryFake(t)
	mine := r.put(t, "mine", testImage{layers: []testLayer{plainLayer(tarOf(t, entry{name: "f", body: "mine"}))}})
	other := r.put(t, "other", testImage{platform: [2]string{"linux", "s390x"}, layers: []testLayer{plainLayer(tarOf(t, entry{name: "f", body: "other"}))}})
	desc := func(raw []byte, mediaType, platform string) string {
		if platform != "" {
			os, arch, _ := strings.Cut(platform, "/")
			platform = fmt.Sprintf(`,"platform":{"os":%q,"architecture":%q}`, os, arch)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, digestOf(raw), len(raw), platform)
	}
	index := func(tag, mediaType string, entries ...string) []byte {
		raw := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaType, strings.Join(entries, ",")))
		r.putManifest(raw, tag)
		return raw
	}
	here := "linux/" + runtime.GOARCH
	flat := index("flat", typeOCIIndex, desc(other, typeOCIManifest, "linux/s390x"), desc(mine, typeOCIManifest, here))
	foreign := index("foreign", typeOCIIndex, desc(other, typeOCIManifest, "linux/s390x"), desc(mine, typeOCIManifest, "unknown/unknown"))
	list := index("list", typeDockerList, desc(foreign, typeOCIIndex, ""), desc(flat, typeOCIIndex, ""))
	deep := index("deep", typeOCIIndex, desc(list, typeDockerList, ""))
	index("unnamed", typeOCIIndex, desc(mine, typeOCIManifest, ""))
	index("liar", typeOCIIndex, desc(other, typeOCIManifest, here))
	index("mislabelled", typeOCIIndex, desc(flat, typeOCIManifest, here))
	index("short", typeOCIIndex, strings.Replace(desc(mine, typeOCIManifest, here), `"size":`, `"size":1`, 1))
	index("empty", typeOCIIndex)
	p := newTestPuller(t, r)
	for _, tag := range []string{"flat", "list", "unnamed", "mine"} {
		img := mustPull(t, p, r.ref(tag))
		if img.Manifest != hashOf(mine) {
			t.Errorf("%s: got %s, want %s", tag, img.Manifest, digestOf(mine))
		}
		if want := r.manifests[tag]; img.Digest != hashOf(want) {
			t.Errorf("%s: got digest %s, want %s", tag, img.Digest, digestOf(want))
		}
	}
	_ = deep
	mustFail(t, p, r.ref("deep"), ErrTooLarge)
	mustFail(t, p, r.ref("foreign"), ErrPlatform)
	mustFail(t, p, r.ref("liar"), ErrPlatform)
	mustFail(t, p, r.ref("other"), ErrPlatform)
	mustFail(t, p, r.ref("mislabelled"), ErrManifest)
	mustFail(t, p, r.ref("short"), ErrShortBlob)
	mustFail(t, p, r.ref("empty"), ErrPlatform)
}

// An index that leads to ever more indexes ends after a fixed number of fetches.
func TestPullIndexBomb(t *testing.T) {
	r := newRegistryFake(t)
	var entries []string
	for i := range 200 {
		raw := []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"annotations":{"n":"%d"}}`, i))
		r.putManifest(raw)
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, typeOCIIndex, digestOf(raw), len(raw)))
	}
	r.putManifest([]byte(`{"schemaVersion":2,"manifests":[`+strings.Join(entries, ",")+`]}`), "bomb")
	p := newTestPuller(t, r)
	mustFail(t, p, r.ref("bomb"), ErrTooLarge)
	if n := len(r.requests); n > maxIndexFetches+3 {
		t.Errorf("got %d requests, want at most %d", n, maxIndexFetches+3)
	}
	wantEmpty(t, p)
}

// Equal pulls are one, and one that nobody waits for any more is joined by the
// next caller.
func TestPullJoined(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	hold := make(chan struct{})
	arrived := make(chan struct{}, 100)
	r.handle = func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/blobs/") {
			arrived <- struct{}{}
			<-hold
		}
		return false
	}
	p := newTestPuller(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := p.Pull(ctx, r.ref("v1")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v, want %v", err, context.Canceled)
	}
	var wg sync.WaitGroup
	images := make([]*Image, 8)
	for i := range images {
		wg.Go(func() { images[i] = mustPull(t, p, r.ref("v1")) })
	}
	for joined := false; !joined; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		joined = len(p.flights) == 1
		p.mu.Unlock()
	}
	close(hold)
	wg.Wait()
	if n := r.blobRequests(); n != 4 {
		t.Errorf("got %d blob requests for 9 equal pulls, want 4", n)
	}
}

// Two images that share a layer fetch it once, also at the same time.
func TestPullSharedLayer(t *testing.T) {
	r := newRegistryFake(t)
	shared := gzipLayer(t, someTar(t))
	for i := range 4 {
		r.put(t, fmt.Sprint("v", i), testImage{layers: []testLayer{shared, plainLayer(tarOf(t, entry{name: fmt.Sprint(i)}))}})
	}
	p := newTestPuller(t, r)
	var wg sync.WaitGroup
	images := make([]*Image, 4)
	for i := range images {
		wg.Go(func() { images[i] = mustPull(t, p, r.ref(fmt.Sprint("v", i))) })
	}
	wg.Wait()
	fetched := slices.DeleteFunc(slices.Clone(r.requests), func(s string) bool { return !strings.HasSuffix(s, shared.digest) })
	if len(fetched) != 1 {
		t.Errorf("the shared layer was fetched %d times", len(fetched))
	}
	for i, img := range images[:3] {
		if err := p.Remove(img); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(images[3].Layers[0]); err != nil {
			t.Fatalf("removing image %d took the shared layer along: %v", i, err)
		}
		if _, err := os.Stat(img.Layers[1]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("image %d's own layer is still there", i)
		}
	}
	if err := p.Remove(images[3]); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, p)
}

// Of a layer that occurs several times the topmost counts: A, B, A is A over B.
func TestPullRepeatedLayers(t *testing.T) {
	r := newRegistryFake(t)
	a := gzipLayer(t, tarOf(t, entry{name: "f", body: "a"}))
	b := gzipLayer(t, tarOf(t, entry{name: "f", body: "b"}))
	empty := plainLayer(tarOf(t))
	r.put(t, "aba", testImage{layers: []testLayer{a, empty, b, empty, a}})
	r.put(t, "none", testImage{})
	p := newTestPuller(t, r)
	img := mustPull(t, p, r.ref("aba"))
	if len(img.Layers) != 3 {
		t.Fatalf("got %d layers, want 3: B, empty, A", len(img.Layers))
	}
	wantFile(t, filepath.Join(img.Layers[2], "f"), "a")
	wantFile(t, filepath.Join(img.Layers[0], "f"), "b")
	if img := mustPull(t, p, r.ref("none")); len(img.Layers) != 0 {
		t.Errorf("got %d layers of an image without any", len(img.Layers))
	}
}

// A layer whose root is opaque hides every layer below it, which overlayfs does
// not do for a lower layer's root.
func TestPullOpaqueRoot(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{
		plainLayer(tarOf(t, entry{name: "below", body: "x"})),
		plainLayer(tarOf(t, entry{name: ".wh..wh..opq"}, entry{name: "above", body: "x"})),
	}})
	img := mustPull(t, newTestPuller(t, r), r.ref("v1"))
	if len(img.Layers) != 1 {
		t.Fatalf("got %d layers, want 1", len(img.Layers))
	}
	wantFile(t, filepath.Join(img.Layers[0], "above"), "x")
}

func TestPullEncrypted(t *testing.T) {
	r := newRegistryFake(t)
	keys := new(fakeKeys)
	clear := gzipLayer(t, someTar(t))
	secret := clear.encrypted(t, keys)
	r.put(t, "secret", testImage{layers: []testLayer{secret}})
	p := newTestPuller(t, r, func(c *Config) { c.Unwrapper = keys })
	img := mustPull(t, p, r.ref("secret"))
	wantFile(t, filepath.Join(img.Layers[0], "etc/motd"), "hello\n")

	// Rule: a cached encrypted layer is opened again with the asking manifest's
	// own annotation, on every use.
	calls := keys.calls
	if again := mustPull(t, p, r.ref("secret")); again.Layers[0] != img.Layers[0] || keys.calls != calls+1 {
		t.Errorf("second pull: layer %s, %d unwraps; want %s, 1", again.Layers[0], keys.calls-calls, img.Layers[0])
	}
	keys.deny = true
	mustFail(t, p, r.ref("secret"), ErrKey)
	mustFail(t, p, r.ref("secret"), errNoKey)

	// The same DiffID from an unencrypted manifest, whose blob is not the layer:
	// the cached directory must not stand in for it.
	thief := clear
	thief.blob = gzipOf(t, tarOf(t, entry{name: "evil"}))
	r.put(t, "thief", testImage{layers: []testLayer{redigest(thief)}})
	mustFail(t, p, r.ref("thief"), ErrDiffID)

	// The same blob and DiffID with a wrapped key that opens but is another one.
	keys.deny = false
	swapped := secret
	swapped.annotations = clear.encrypted(t, keys).annotations
	r.put(t, "swapped", testImage{layers: []testLayer{swapped}})
	mustFail(t, p, r.ref("swapped"), ErrMAC)

	// And the other way round: what came in the clear is no proof of a key.
	r.put(t, "clear", testImage{layers: []testLayer{clear}})
	if plain := mustPull(t, p, r.ref("clear")); plain.Layers[0] == img.Layers[0] {
		t.Error("the clear image uses the encrypted layer's directory")
	}
}

// The policy speaks before a layer, or even the config, is fetched, and again
// for every use of a cached image.
func TestPullPolicy(t *testing.T) {
	r := newRegistryFake(t)
	manifest := r.put(t, "v1", someImage(t))
	p := newTestPuller(t, r)
	reject := policyOf(t, `{"default":[{"type":"reject"}]}`)
	p.SetPolicy(reject)
	mustFail(t, p, r.ref("v1"), trust.ErrDenied)
	p.SetPolicy(nil)
	mustFail(t, p, r.ref("v1"), trust.ErrDenied)
	if n := r.blobRequests(); n != 0 {
		t.Errorf("got %d blob requests before the policy admitted the image", n)
	}
	wantEmpty(t, p)
	accept := acceptAnything(t)
	p.SetPolicy(accept)
	mustPull(t, p, r.ref("v1"))
	if got := p.images[hashOf(manifest)].policy; got != accept.Hash() {
		t.Error("the cached image does not have its policy's hash")
	}
	p.SetPolicy(reject)
	mustFail(t, p, r.ref("v1"), trust.ErrDenied)
	mustFail(t, p, r.ref(digestOf(manifest)), trust.ErrDenied)
}

func TestPullSignatures(t *testing.T) {
	r := newRegistryFake(t)
	manifest := r.put(t, "v1", someImage(t))
	f := fetcher{src: testSource(t, r, "v1"), stall: time.Second, retrier: retrier{attempts: 1}}
	if got, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(manifest)); err != nil || got != nil {
		t.Fatalf("unsigned: got %v, %v, want none", got, err)
	}
	payload := []byte(`{"critical":{}}`)
	layer := func(mediaType, sig string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}`, mediaType, digestOf(payload), len(payload), annotationSignature, sig)
	}
	put := func(layers ...string) {
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x","digest":%q,"size":2},"layers":[%s]}`,
			typeOCIManifest, digestOf([]byte("{}")), strings.Join(layers, ","))
		r.putManifest([]byte(raw), strings.Replace(digestOf(manifest), ":", "-", 1)+".sig")
	}
	r.putBlob(payload)
	put(layer("other/type", "x"), layer(typeSimpleSigning, "c2ln"), layer(typeSimpleSigning, ""))
	got, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(manifest))
	if err != nil || len(got) != 1 || string(got[0].Payload) != string(payload) || got[0].Base64Signature != "c2ln" {
		t.Fatalf("got %v, %v, want the one signature", got, err)
	}
	put(slices.Repeat([]string{layer(typeSimpleSigning, "c2ln")}, maxSignatures+1)...)
	if _, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(manifest)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("signature flood: got error %v, want %v", err, ErrTooLarge)
	}
	r.mu.Lock()
	r.blobs[digestOf(payload)] = []byte(`{"critical":[]}`)
	r.mu.Unlock()
	put(layer(typeSimpleSigning, "c2ln"))
	if _, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(manifest)); !errors.Is(err, ErrDigest) {
		t.Errorf("payload replaced: got error %v, want %v", err, ErrDigest)
	}
}

// A policy that wants signatures gets them from the image's own repository, by
// the digest of the index as well as by that of the manifest.
func TestPullSigned(t *testing.T) {
	r := newRegistryFake(t)
	manifest := r.put(t, "v1", someImage(t))
	index := []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}]}`,
		typeOCIManifest, digestOf(manifest), len(manifest), runtime.GOARCH))
	r.putManifest(index, "index")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	policy := policyOf(t, fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{"%s/app":[{"type":"sigstoreSigned","keyData":%q,"signedIdentity":{"type":"matchRepository"}}]}}}`,
		r.host(), base64.StdEncoding.EncodeToString(pemKey)))
	p := newTestPuller(t, r, func(c *Config) { c.Policy = policy })
	mustFail(t, p, r.ref("v1"), trust.ErrDenied)
	mustFail(t, p, r.ref("index"), trust.ErrDenied)
	if _, err := p.Resolve(t.Context(), r.ref("v1")); !errors.Is(err, trust.ErrDenied) {
		t.Errorf("resolving an unsigned image: got %v", err)
	}
	if n := r.blobRequests(); n != 0 {
		t.Errorf("got %d blob requests for unsigned images", n)
	}
	sign := func(signed []byte) {
		t.Helper()
		payload := []byte(fmt.Sprintf(`{"critical":{"identity":{"docker-reference":"%s/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, r.host(), digestOf(signed)))
		sum := sha256.Sum256(payload)
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		r.putBlob(payload)
		r.putManifest([]byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q}}]}`,
			typeOCIManifest, typeOCIConfig, digestOf([]byte("{}")), typeSimpleSigning, digestOf(payload), len(payload), annotationSignature, base64.StdEncoding.EncodeToString(sig))),
			strings.Replace(digestOf(signed), ":", "-", 1)+".sig")
	}
	sign(index)
	mustPull(t, p, r.ref("index"))
	mustFail(t, p, r.ref("v1"), trust.ErrDenied) // cached, but not signed by itself
	sign(manifest)
	if _, err := p.Resolve(t.Context(), r.ref("v1")); err != nil {
		t.Errorf("resolving a signed image: %v", err)
	}
	mustPull(t, p, r.ref("v1"))
	mustPull(t, p, r.ref(digestOf(manifest)))
}

// Space is checked before the first byte of a layer, and the error says how much
// is missing.
func TestPullNoSpace(t *testing.T) {
	r := newRegistryFake(t)
	l := plainLayer(someTar(t))
	l.size = 1 << 50
	r.put(t, "big", testImage{layers: []testLayer{l, l}})
	p := newTestPuller(t, r)
	err := mustFail(t, p, r.ref("big"), ErrNoSpace)
	if !strings.Contains(err.Error(), "1073741824 MiB") || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("error does not say what is needed: %v", err)
	}
	if n := r.blobRequests(); n != 1 {
		t.Errorf("got %d blob requests, want the config's", n)
	}
	wantEmpty(t, p)
}

// The layers that were done when another one failed for want of network stay for
// the next attempt; with a wrong one they go.
func TestPullKeepsWhatIsDone(t *testing.T) {
	r := newRegistryFake(t)
	good, bad := plainLayer(tarOf(t, entry{name: "good"})), gzipLayer(t, someTar(t))
	r.put(t, "v1", testImage{layers: []testLayer{good, bad}})
	status := http.StatusInternalServerError
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, bad.digest) {
			time.Sleep(50 * time.Millisecond)
			w.WriteHeader(status)
			return true
		}
		return false
	}
	p := newTestPuller(t, r)
	mustFail(t, p, r.ref("v1"), ErrRegistry)
	if left := leftovers(t, p); len(left) != 1 {
		t.Errorf("left: %q, want the finished layer", left)
	}
	status = http.StatusNotFound
	mustFail(t, p, r.ref("v1"), ErrNotFound)
	wantEmpty(t, p)
}

func TestPullClosed(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	stop := make(chan struct{})
	defer close(stop)
	r.handle = func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/blobs/") {
			select {
			case <-stop:
			case <-req.Context().Done():
			}
		}
		return false
	}
	p := newTestPuller(t, r)
	done := make(chan error)
	go func() {
		_, err := p.Pull(context.Background(), r.ref("v1"))
		done <- err
	}()
	for r.blobRequests() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("got error %v, want %v", err, ErrClosed)
	}
	if _, err := p.Pull(t.Context(), r.ref("v1")); !errors.Is(err, ErrClosed) {
		t.Errorf("got error %v, want %v", err, ErrClosed)
	}
}
