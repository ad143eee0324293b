// SPDX-License-Identifier: Apache-2.0

//go:build interop

package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

const acceptAnything = `{"default":[{"type":"insecureAcceptAnything"}]}` + "\n"

// tree is every file of a mounted image with its content.
func tree(t *testing.T, root string) string {
	t.Helper()
	out, err := fixture.Run(t.Context(), "sh", "-c", "cd "+root+" && find . -printf '%p %m %U %G %s %l\\n' | sort && find . -type f -exec sha256sum {} + | sort")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// providerConfig writes what OCICRYPT_KEYPROVIDER_CONFIG names.
func providerConfig(t *testing.T, address string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ocicrypt.json")
	text := fmt.Sprintf(`{"key-providers":{"attestation-agent":{"grpc":%q}}}`, address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// providerSkopeo is one that asks key providers; Debian's does not.
const providerSkopeo = "../../../build/cache/skopeo-provider/skopeo"

// withProvider runs that skopeo with its key provider at the address in config.
func withProvider(t *testing.T, config string, args ...string) ([]byte, error) {
	t.Helper()
	if _, err := os.Stat(providerSkopeo); err != nil {
		t.Fatalf("%v (`make setup` puts it there)", err)
	}
	cmd := exec.CommandContext(t.Context(), providerSkopeo, append([]string{"--insecure-policy"}, args...)...)
	cmd.Env = append(os.Environ(), "OCICRYPT_KEYPROVIDER_CONFIG="+config)
	return cmd.CombinedOutput()
}

// skopeo runs Debian's.
func skopeo(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	return exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy"}, args...)...).CombinedOutput()
}

// dials waits until something listens on a unix socket.
func dials(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// TestInteropSkopeo moves images between Debian's skopeo and casemate, each opening
// what the other encrypted.
func TestInteropSkopeo(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-a.toml", "a", acceptAnything)
	w.register(t, "a", d.Digest)
	ours := w.image(t, "a")
	plain := filepath.Join(t.TempDir(), "plain")
	w.plainCopy(t, ours, d, plain)

	t.Run("skopeo encrypts through our socket, casemate opens it", func(t *testing.T) {
		socket := w.path("wrap.sock")
		p, err := fixture.Start(t.Context(), dials(socket), program("casemate-build"), append([]string{
			"keyprovider", "--listen", "unix:" + socket, "--key-id", "kbs:///a/image/second", "--workload", "a",
		}, w.broker.OwnerFlags()...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		name := w.registry.Addr + "/a/by-skopeo:1"
		if out, err := withProvider(t, providerConfig(t, "unix://"+socket), "copy", "--dest-tls-verify=false",
			"--encryption-key", "provider:attestation-agent:keyid=kbs:///a/image/second", "oci:"+plain, "docker://"+name); err != nil {
			t.Fatalf("skopeo: %v: %s", err, out)
		}
		dir := filepath.Join(t.TempDir(), "pulled")
		defer unmount(t, filepath.Join(dir, "bundle", "rootfs"))
		if _, log, err := w.guest(t, d, "pull", name, dir); err != nil {
			t.Fatalf("casemate pull: %v: %s", err, log)
		}
		if got := tree(t, filepath.Join(dir, "bundle", "rootfs")); !strings.Contains(got, "./bin/busybox 755") {
			t.Fatalf("the pulled tree has no busybox:\n%s", got)
		}
	})

	t.Run("skopeo encrypts with a JWE key, casemate names what it lacks", func(t *testing.T) {
		key, public := w.path("jwe.key"), w.path("jwe.pub")
		for _, args := range [][]string{{"genrsa", "-out", key, "2048"}, {"rsa", "-in", key, "-pubout", "-out", public}} {
			if _, err := fixture.Run(t.Context(), "openssl", args...); err != nil {
				t.Fatal(err)
			}
		}
		name := w.registry.Addr + "/a/jwe:1"
		if out, err := skopeo(t, "copy", "--dest-tls-verify=false", "--encryption-key", "jwe:"+public, "oci:"+plain, "docker://"+name); err != nil {
			t.Fatalf("skopeo: %v: %s", err, out)
		}
		_, log, err := w.guest(t, d, "pull", name, filepath.Join(t.TempDir(), "pulled"))
		if err == nil || !strings.Contains(log, "jwe") {
			t.Fatalf("got %v, want a refusal that names jwe: %s", err, log)
		}
	})

	t.Run("skopeo opens what casemate-build encrypted, through the guest's socket", func(t *testing.T) {
		socket := w.path("unwrap.sock")
		config := w.path("serve.toml")
		if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, w.path("store")); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, fmt.Sprintf("\n[keyprovider]\nlisten = %q\n", "unix://"+socket)...)
		if err := os.WriteFile(config, text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := fixture.Start(t.Context(), dials(socket), program("casemate-testsnp"), "serve", "--config", config)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		layout := filepath.Join(t.TempDir(), "opened")
		if out, err := withProvider(t, providerConfig(t, "unix://"+socket), "copy", "--src-tls-verify=false",
			"--decryption-key", "provider:attestation-agent:any", "docker://"+ours, "oci:"+layout+":app"); err != nil {
			t.Fatalf("skopeo: %v: %s; the guest: %s", err, out, p.Output())
		}
		if out, err := fixture.Run(t.Context(), "umoci", "unpack", "--image", layout+":app", filepath.Join(t.TempDir(), "bundle")); err != nil {
			t.Fatalf("umoci: %v: %s", err, out)
		}
	})
}

// plainCopy decrypts an image of ours into an OCI layout, by the guest's pull of the
// same tree: the layer's tar comes from the mounted root file system.
func (w *world) plainCopy(t *testing.T, image string, d fixture.InitData, layout string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pulled")
	if _, log, err := w.guest(t, d, "pull", image, dir); err != nil {
		t.Fatalf("casemate pull: %v: %s", err, log)
	}
	rootfs := filepath.Join(dir, "bundle", "rootfs")
	defer unmount(t, rootfs)
	layer := filepath.Join(t.TempDir(), "layer.tar")
	if _, err := fixture.Run(t.Context(), "tar", "-C", rootfs, "-cf", layer, "."); err != nil {
		t.Fatal(err)
	}
	if err := fixture.WriteImage(layout, fixture.Image{Layers: []string{layer}, Config: v1.Config{Cmd: []string{"/bin/sh"}}}); err != nil {
		t.Fatal(err)
	}
}

func unmount(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", path).CombinedOutput(); err != nil {
		t.Logf("umount %s: %v: %s", path, err, out)
	}
}

// TestInteropOpenSSLSignature verifies a cosign-format signature that openssl made
// over a payload written by hand.
func TestInteropOpenSSLSignature(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-a.toml", "a", w.policy)
	w.register(t, "a", d.Digest)
	name := w.registry.Addr + "/a/foreign"
	signed := w.image(t, "a")
	if out, err := skopeo(t, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+signed, "docker://"+name+":1"); err != nil {
		t.Fatalf("skopeo: %v: %s", err, out)
	}
	out, err := skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+name+":1")
	if err != nil {
		t.Fatalf("skopeo: %v: %s", err, out)
	}
	sum, err := fixture.Run(t.Context(), "sh", "-c", "skopeo --insecure-policy inspect --raw --tls-verify=false docker://"+name+":1 | sha256sum | cut -d' ' -f1")
	if err != nil {
		t.Fatal(err)
	}
	digest := strings.TrimSpace(string(sum))
	if _, log, err := w.guest(t, d, "run", name+":1", "--", "echo ran"); err == nil {
		t.Fatalf("an unsigned copy ran: %s", log)
	}
	w.pushSignature(t, name, digest)
	got, log, err := w.guest(t, d, "run", name+":1", "--", "echo ran")
	if err != nil || got != "ran\n" {
		t.Fatalf("got %q, %v: %s", got, err, log)
	}
}

// pushSignature signs with openssl and stores the result under cosign's tag with
// skopeo.
func (w *world) pushSignature(t *testing.T, repository, digest string) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":"sha256:%s"},"type":"cosign container image signature"},"optional":null}`, repository, digest)
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, payload, 0o600); err != nil {
		t.Fatal(err)
	}
	signature, err := fixture.Run(t.Context(), "sh", "-c", "openssl dgst -sha256 -sign "+w.path("owner.key")+" "+file+" | base64 -w0")
	if err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(t.TempDir(), "signature")
	config := []byte(`{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":["` + blob(t, layout, payload).Digest + `"]}}`)
	layer := blob(t, layout, payload)
	layer.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": string(bytes.TrimSpace(signature))}
	conf := blob(t, layout, config)
	conf.MediaType = "application/vnd.oci.image.config.v1+json"
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": conf, "layers": []descriptor{layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := blob(t, layout, manifest)
	m.MediaType = "application/vnd.oci.image.manifest.v1+json"
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{m}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(layout, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := skopeo(t, "copy", "--dest-tls-verify=false", "oci:"+layout, "docker://"+repository+":sha256-"+digest+".sig"); err != nil {
		t.Fatalf("skopeo: %v: %s", err, out)
	}
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// blob writes content into an OCI layout.
func blob(t *testing.T, layout string, content []byte) descriptor {
	t.Helper()
	file := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := fixture.Run(t.Context(), "sha256sum", file)
	if err != nil {
		t.Fatal(err)
	}
	hex := strings.Fields(string(out))[0]
	dir := filepath.Join(layout, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, hex), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return descriptor{Digest: "sha256:" + hex, Size: len(content)}
}
