// SPDX-License-Identifier: Apache-2.0

//go:build interop

package chain

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

// TestInteropServices asks a real `casemate serve` for secrets of a real keybroker.
func TestInteropServices(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-s.toml", "s", acceptAnything)
	w.register(t, "s", d.Digest)
	w.secret(t, "s", "app/config/x", "secret of s")
	w.secret(t, "s", "app/config/y", "not for containers")
	sealed := bytes.TrimSpace(w.must(t, "casemate-build", "seal", "kbs:///app/config/y",
		"--key", w.path("owner.key"), "--key-id", "kbs:///app/signing/1", "--jwk-out", w.path("owner.jwk")))
	jwk, err := os.ReadFile(w.path("owner.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	w.secret(t, "s", "app/signing/1", string(jwk))
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	rest, err := fixture.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	config, socket := w.path("services.toml"), w.path("cdh.sock")
	if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, w.path("store")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "\n[services]\ndata_hub = %q\nrest = %q\nrest_resources = ['kbs:///app/config/x']\n", "unix://"+socket, rest)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := fixture.Start(t.Context(), dials(socket), program("casemate-testsnp"), "serve", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	unsealed, err := datahub.NewTTRPCSealedSecretServiceClient(client).UnsealSecret(t.Context(), &datahub.UnsealSecretInput{Secret: sealed})
	if err != nil || string(unsealed.Plaintext) != "not for containers" {
		t.Errorf("got %q, %v; the guest: %s", unsealed.GetPlaintext(), err, p.Output())
	}
	for path, want := range map[string]string{"x": "200 secret of s", "y": "500 get resource failed"} {
		response, err := http.Get("http://" + rest + "/cdh/resource/app/config/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if got := fmt.Sprintf("%d %s", response.StatusCode, body); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q; the guest: %s", path, got, err, want, p.Output())
		}
	}
}
