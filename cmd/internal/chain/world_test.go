// SPDX-License-Identifier: Apache-2.0

//go:build root || interop || vm

package chain

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

const (
	bin         = "../../../bin"
	measurement = "a1" // repeated to 48 bytes
)

// world is one owner with a registry, a keybroker and a signing key.
type world struct {
	dir      string
	registry *fixture.Registry
	broker   *fixture.Broker
	chip     fixture.Chip
	policy   string
}

func program(name string) string { return filepath.Join(bin, name) }

// newWorld starts them. flags are more of keybroker's, such as a name by which the guest
// reaches it.
func newWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	for _, name := range []string{"casemate-testsnp", "keybroker", "casemate-build"} {
		if _, err := os.Stat(program(name)); err != nil {
			t.Fatalf("%v (`make build bin/casemate-testsnp` makes it)", err)
		}
	}
	w := &world{dir: t.TempDir()}
	var err error
	if w.registry, err = fixture.StartRegistry(t.Context(), w.path("registry"), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.registry.Close)
	if w.chip, err = fixture.NewChip(w.path("chip")); err != nil {
		t.Fatal(err)
	}
	if w.broker, err = fixture.StartBroker(t.Context(), program("keybroker"), w.path("keybroker"), w.chip.Root(), flags...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Close)
	w.must(t, "casemate-build", "keygen", "--out", w.path("owner"))
	if w.policy, err = fixture.SignedBy(w.registry.Addr, w.path("owner.pub")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) must(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := fixture.Run(t.Context(), program(name), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// initdata writes a document for a workload.
func (w *world) initdata(t *testing.T, name, workload, policy string, rego ...string) fixture.InitData {
	t.Helper()
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path(name), fixture.InitDataOptions{
		Workload: workload, KBS: w.broker.URL, Cert: w.broker.Cert, Policy: policy, Rego: strings.Join(rego, "\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) register(t *testing.T, workload, digest string) {
	t.Helper()
	file := w.path(workload + ".toml")
	if err := fixture.Registration(file, workload, strings.Repeat(measurement, 48), digest); err != nil {
		t.Fatal(err)
	}
	w.must(t, "keybroker", append([]string{"register", file}, w.broker.OwnerFlags()...)...)
}

// secret puts a secret under a workload.
func (w *world) secret(t *testing.T, workload, path, value string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "keybroker", append([]string{"resource", "set", path, file, "--workload", workload}, w.broker.OwnerFlags()...)...)
}

// guest runs casemate on a machine that the host launched with d.
func (w *world) guest(t *testing.T, d fixture.InitData, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	config := w.path("casemate.toml")
	if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, w.path("store")); err != nil {
		t.Fatal(err)
	}
	args = append([]string{args[0], "--config", config}, args[1:]...)
	cmd := exec.CommandContext(t.Context(), program("casemate-testsnp"), args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// image pushes a signed, encrypted image with busybox and returns its name.
func (w *world) image(t *testing.T, workload string) string {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	layer := filepath.Join(t.TempDir(), "layer.tar")
	file, err := os.Create(layer)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(file)
	for _, h := range []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(busybox))},
		{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"},
	} {
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := tw.Write(busybox); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := fixture.WriteImage(plain, fixture.Image{Layers: []string{layer}, Config: v1.Config{Entrypoint: []string{"/bin/sh", "-c"}}}); err != nil {
		t.Fatal(err)
	}
	name := w.registry.Addr + "/" + workload + "/app:1"
	w.must(t, "casemate-build", append([]string{
		"encrypt", "oci:" + plain, "docker://" + name, "--insecure-registry", w.registry.Addr,
		"--key-id", "kbs:///" + workload + "/image/kek", "--workload", workload,
	}, w.broker.OwnerFlags()...)...)
	w.must(t, "casemate-build", "sign", name, "--key", w.path("owner.key"), "--insecure-registry", w.registry.Addr)
	return name
}
