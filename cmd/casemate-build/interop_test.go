// SPDX-License-Identifier: Apache-2.0

//go:build interop

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/keyprovider"
)

const interopKeyID = "kbs:///interop/image-kek/1"

// need skips unless a program is installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// providerSkopeo returns a skopeo that can use key providers: the installed one
// or the one of .ci/skopeo-provider.
func providerSkopeo(t *testing.T) string {
	t.Helper()
	need(t, "skopeo")
	nowhere := "dir:" + filepath.Join(t.TempDir(), "absent")
	err := tool(t, nil, "skopeo", "--insecure-policy", "copy", "--encryption-key", "provider:attestation-agent:", nowhere, nowhere)
	if err != nil && !strings.Contains(err.Error(), "protocol not recognized") {
		return "skopeo"
	}
	cache, err := filepath.Abs("../../build/cache/skopeo-provider")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "../../.ci/skopeo-provider", cache).Output()
	if err != nil {
		t.Skipf("the installed skopeo knows no key providers, and another one could not be had: %v", err)
	}
	skopeo := strings.TrimSpace(string(out))
	if err := tool(t, nil, skopeo, "--version"); err != nil {
		t.Skipf("the installed skopeo knows no key providers, and the other one does not run here: %v", err)
	}
	return skopeo
}

// tool runs another program with variables added to its environment.
func tool(t *testing.T, env []string, name string, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func mustRun(t *testing.T, args ...string) {
	t.Helper()
	var errs bytes.Buffer
	if code := run(t.Context(), args, streams{out: io.Discard, err: &errs}); code != exitDone {
		t.Fatalf("%v: exit code %d: %s", args, code, &errs)
	}
}

// gzipImage is an image with real layers: gzip-compressed tar files.
func gzipImage(t *testing.T, layers int) v1.Image {
	t.Helper()
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for i := range layers {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		content := bytes.Repeat([]byte(layerContent(i)), 10_000)
		err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file%d", i), Mode: 0o644, Size: int64(len(content))})
		_, writeErr := w.Write(content)
		if err = errors.Join(err, writeErr, w.Close()); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
		}, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// workshop is a directory with a plain image and a key, and a real registry.
type workshop struct {
	dir, kek string
	plain    v1.Image
	registry string
	client   *image.Client
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	need(t, "docker-registry")
	w := &workshop{dir: t.TempDir(), plain: gzipImage(t, 3)}
	r, err := fixture.StartRegistry(t.Context(), filepath.Join(w.dir, "registry"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	w.registry = r.Addr
	w.client = image.New(image.Config{Insecure: []string{w.registry}})
	w.kek = filepath.Join(w.dir, "kek")
	if err := os.WriteFile(w.kek, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{w.path("oci", "plain") + ":1", "docker://" + w.registry + "/plain:1"} {
		if err := w.client.Write(t.Context(), w.parse(t, where), &image.Content{Image: w.plain}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// path is an absolute location in the workshop.
func (w *workshop) path(transport, name string) string {
	return transport + ":" + filepath.Join(w.dir, name)
}

func (w *workshop) parse(t *testing.T, where string) image.Location {
	t.Helper()
	l, err := w.client.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *workshop) manifest(t *testing.T, where string) (*v1.Manifest, v1.Image) {
	t.Helper()
	content, err := w.client.Open(t.Context(), w.parse(t, where))
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ReadManifest(content.Image, content.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	return m, content.Image
}

// configure writes ocicrypt's configuration for a key provider and returns the
// environment variable that names it.
func (w *workshop) configure(t *testing.T, target string) []string {
	t.Helper()
	var c providerConfig
	c.KeyProviders = map[string]map[string]string{keyprovider.ProviderName: {"grpc": target}}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "ocicrypt.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"OCICRYPT_KEYPROVIDER_CONFIG=" + file}
}

// serveWrap runs `casemate-build keyprovider` until the test ends and returns
// where it says that it listens.
func (w *workshop) serveWrap(t *testing.T, listen string) (target string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		code := run(ctx, []string{"keyprovider", "--listen", listen, "--key-id", interopKeyID, "--kek-file", w.kek, "--json"},
			streams{out: writer, err: &errs})
		_ = writer.Close()
		ended <- code
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != exitDone {
			t.Errorf("keyprovider: exit code %d: %s", code, &errs)
		}
	})
	var s serving
	if err := json.NewDecoder(reader).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s.Listen
}

// serveUnwrap runs the service of a guest.
func serveUnwrap(t *testing.T, listen string, kek []byte) (target string) {
	t.Helper()
	l, err := keyprovider.Listen(t.Context(), listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	ended := make(chan error, 1)
	go func() {
		ended <- keyprovider.Serve(ctx, l, &keyprovider.UnwrapService{Unwrapper: &keyprovider.Unwrapper{Keys: fixedKey(kek)}, Log: log}, log)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return l.Addr().String()
}

func (w *workshop) listeners() map[string]string {
	return map[string]string{"unix": w.path("unix", fmt.Sprintf("s%d", time.Now().UnixNano())), "loopback": "127.0.0.1:0"}
}

// skopeo encrypts through our key-provider socket, and our Unwrapper opens it.
func TestSkopeoEncryptsThroughUs(t *testing.T) {
	skopeo := providerSkopeo(t)
	w := newWorkshop(t)
	kek, err := os.ReadFile(w.kek)
	if err != nil {
		t.Fatal(err)
	}
	for name, listen := range w.listeners() {
		t.Run(name, func(t *testing.T) {
			env := w.configure(t, w.serveWrap(t, listen))
			for _, to := range []string{w.path("oci", name) + ":1", "docker://" + w.registry + "/" + name + ":1"} {
				err := tool(t, env, skopeo, "--insecure-policy", "copy", "--dest-tls-verify=false",
					"--encryption-key", "provider:attestation-agent:keyid="+interopKeyID, w.path("oci", "plain")+":1", to)
				if err != nil {
					t.Fatal(err)
				}
				m, img := w.manifest(t, to)
				for i, desc := range m.Layers {
					if !strings.HasSuffix(string(desc.MediaType), "+encrypted") {
						t.Errorf("%s: layer %d is %s", to, i, desc.MediaType)
					}
					got, err := openLayer(img, desc, kek)
					if err != nil {
						t.Fatalf("%s: layer %d: %v", to, i, err)
					}
					w.compare(t, i, got)
				}
			}
			err := tool(t, env, skopeo, "--insecure-policy", "copy", "--encryption-key", "provider:attestation-agent:keypath=/etc/hostname", w.path("oci", "plain")+":1", w.path("oci", "refused")+":1")
			if err == nil || !strings.Contains(err.Error(), "keypath is refused") {
				t.Errorf("keypath: got %v, want a refusal", err)
			}
		})
	}
}

// compare checks a decrypted layer against the plain image's.
func (w *workshop) compare(t *testing.T, i int, got []byte) {
	t.Helper()
	m, err := w.plain.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	hash, size, err := v1.SHA256(bytes.NewReader(got))
	if err != nil || hash != m.Layers[i].Digest || size != m.Layers[i].Size {
		t.Errorf("layer %d: got %d bytes with %s, %v, want %d with %s", i, size, hash, err, m.Layers[i].Size, m.Layers[i].Digest)
	}
}

// skopeo decrypts what `casemate-build encrypt` wrote, asking the UnWrapKey
// service of a guest.
func TestSkopeoDecryptsOurs(t *testing.T) {
	skopeo := providerSkopeo(t)
	w := newWorkshop(t)
	kek, err := os.ReadFile(w.kek)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{w.path("oci", "secret") + ":1", "docker://" + w.registry + "/secret:1", w.path("oci", "some") + ":1"}
	for _, to := range secrets {
		args := []string{"encrypt", w.path("oci", "plain") + ":1", to, "--key-id", interopKeyID, "--kek-file", w.kek, "--insecure-registry", w.registry}
		if strings.HasSuffix(to, "some:1") {
			args = append(args, "--layer", "1")
		}
		mustRun(t, args...)
	}
	for name, listen := range w.listeners() {
		t.Run(name, func(t *testing.T) {
			env := w.configure(t, serveUnwrap(t, listen, kek))
			for i, from := range secrets {
				to := w.path("oci", fmt.Sprintf("opened-%s-%d", name, i)) + ":1"
				if err := tool(t, env, skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "--decryption-key", "provider:attestation-agent:x", from, to); err != nil {
					t.Fatal(err)
				}
				m, img := w.manifest(t, to)
				for i, desc := range m.Layers {
					got, err := openLayer(img, desc, nil)
					if err != nil {
						t.Fatal(err)
					}
					w.compare(t, i, got)
				}
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		env := w.configure(t, serveUnwrap(t, "127.0.0.1:0", make([]byte, keyprovider.KEKBytes)))
		to := w.path("oci", "shut") + ":1"
		if err := tool(t, env, skopeo, "--insecure-policy", "copy", "--decryption-key", "provider:attestation-agent:x", secrets[0], to); err == nil || !strings.Contains(err.Error(), "Error decrypting layer") {
			t.Errorf("another key: got %v, want a refusal to decrypt", err)
		}
	})
}

// signedWorkshop has the image signed by key+"2" and then by key.
func signedWorkshop(t *testing.T) (w *workshop, key string) {
	t.Helper()
	w = newWorkshop(t)
	key = filepath.Join(w.dir, "owner")
	mustRun(t, "keygen", "--out", key)
	mustRun(t, "keygen", "--out", key+"2")
	for _, k := range []string{key + "2.key", key + ".key"} {
		mustRun(t, "sign", w.registry+"/plain:1", "--key", k, "--insecure-registry", w.registry)
	}
	return w, key
}

// openssl verifies our signature over the bytes that Debian's skopeo fetches.
func TestOpenSSLVerifiesOurSignature(t *testing.T) {
	need(t, "openssl")
	need(t, "skopeo")
	w, key := signedWorkshop(t)
	plain := w.digestOf(t, "docker://"+w.registry+"/plain:1")
	dir := filepath.Join(w.dir, "signatures")
	from := "docker://" + w.registry + "/plain:sha256-" + plain + ".sig"
	if err := tool(t, nil, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", from, "dir:"+dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseManifest(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i, signer := range []string{key + "2", key} {
		signature, err := base64.StdEncoding.DecodeString(m.Layers[i].Annotations["dev.cosignproject.cosign/signature"])
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(w.dir, "signature")
		if err := os.WriteFile(file, signature, 0o600); err != nil {
			t.Fatal(err)
		}
		payload := filepath.Join(dir, m.Layers[i].Digest.Hex)
		if err := tool(t, nil, "openssl", "dgst", "-sha256", "-verify", signer+".pub", "-signature", file, payload); err != nil {
			t.Error(err)
		}
	}
}

// digestOf returns the digest, in hex, of the manifest at where.
func (w *workshop) digestOf(t *testing.T, where string) string {
	t.Helper()
	content, err := w.client.Open(t.Context(), w.parse(t, where))
	if err != nil {
		t.Fatal(err)
	}
	return content.Descriptor.Digest.Hex
}

// cosign itself verifies our signatures.
func TestCosignVerifiesOurSignature(t *testing.T) {
	need(t, "cosign")
	w, key := signedWorkshop(t)
	verify := func(key string) error {
		return tool(t, []string{"HOME=" + w.dir}, "cosign", "verify", "--key", key+".pub", "--insecure-ignore-tlog", "--allow-http-registry", w.registry+"/plain:1")
	}
	for _, k := range []string{key, key + "2"} {
		if err := verify(k); err != nil {
			t.Error(err)
		}
	}
	stranger := filepath.Join(w.dir, "stranger")
	mustRun(t, "keygen", "--out", stranger)
	if err := verify(stranger); err == nil {
		t.Error("cosign verified with another key")
	}
	// And our signature stands beside one of cosign's.
	if err := tool(t, []string{"COSIGN_PASSWORD=secret", "HOME=" + w.dir}, "cosign", "sign", "--key", "internal/cosign/testdata/cosign-protected.key",
		"--tlog-upload=false", "--allow-http-registry", "--yes", w.registry+"/plain:1"); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "sign", w.registry+"/plain:1", "--key", stranger+".key", "--insecure-registry", w.registry)
	for _, k := range []string{key, key + "2", stranger, "internal/cosign/testdata/cosign-protected"} {
		if err := verify(k); err != nil {
			t.Error(err)
		}
	}
}
