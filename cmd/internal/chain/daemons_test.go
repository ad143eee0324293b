// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// TestDaemons starts the binary under the names and with the flags that a stock kata-agent
// uses, from its own root and from a coco extension, and asks the third of them what a
// container asks.
func TestDaemons(t *testing.T) {
	t.Run("of the root", func(t *testing.T) {
		w := newWorld(t)
		bin := w.path("bin")
		if err := os.Mkdir(bin, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"attestation-agent", "confidential-data-hub", "api-server-rest"} {
			target, err := filepath.Abs(program("casemate-testsnp"))
			if err == nil {
				err = os.Symlink(target, filepath.Join(bin, name))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		w.stockDaemons(t, bin, stockLines)
	})
	t.Run("of an extension", func(t *testing.T) {
		w := newWorld(t)
		root := w.extension(t)
		w.stockDaemons(t, root, launchPlan(t, root))
	})
}

// stockLines start the daemons below $2 as kata-agent does where there is no extension;
// $3 is in place of REST's fixed address.
const stockLines = `"$2/attestation-agent" --attestation_sock unix:///run/confidential-containers/attestation-agent/attestation-agent.sock --initdata-toml /run/confidential-containers/initdata/initdata.toml &
"$2/confidential-data-hub" &
"$2/api-server-rest" --features all --bind "$3" &
`

// stockDaemons asks daemons that lines start.
func (w *world) stockDaemons(t *testing.T, bin, lines string) {
	t.Helper()
	d := w.initdata(t, "initdata-d.toml", "d", w.policy)
	w.register(t, "d", d.Digest)
	w.secret(t, "d", "app/config/x", "secret of d")
	w.secret(t, "d", "app/config/y", "not for containers")
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	// The guest's own places, which the daemons go by: a measured root's configuration,
	// and the files that kata-agent writes.
	etc, run := w.path("etc"), w.path("stock")
	for _, dir := range []string{etc, filepath.Join(run, "initdata")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	document, err := os.ReadFile(d.File)
	if err != nil {
		t.Fatal(err)
	}
	measured := fmt.Sprintf("[testsnp]\ndir = %q\n[services]\nrest_resources = ['kbs:///app/config/x']\n"+
		"[[credentials]]\nresource_uri = 'kbs:///app/config/y'\npath = '/run/confidential-containers/cdh/kbs/y'\n", w.chip.Dir)
	for path, text := range map[string]string{filepath.Join(etc, "casemate.toml"): measured, filepath.Join(run, "initdata/initdata.toml"): string(document)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := fixture.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/etc/casemate", "/run/confidential-containers"} {
		if os.Mkdir(dir, 0o700) == nil {
			defer os.Remove(dir)
		}
	}
	// A shell stays the first process of the namespace: casemate as PID 1 would boot a guest.
	script := `mount --bind "$0" /etc/casemate && mount --bind "$1" /run/confidential-containers && mount -t tmpfs none /run/casemate || exit 1
` + lines + "wait"
	if os.Mkdir("/run/casemate", 0o700) == nil {
		defer os.Remove("/run/casemate")
	}
	ready := func(ctx context.Context) error {
		for _, socket := range []string{"attestation-agent/attestation-agent.sock", "cdh.sock"} {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(run, socket))
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		response, err := http.Get("http://" + rest + "/info")
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	p, err := fixture.Start(t.Context(), ready, "unshare", "-m", "--pid", "--fork", "--kill-child", "sh", "-c", script, etc, run, bin, rest)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := os.ReadFile(filepath.Join(run, "cdh/kbs/y")); err != nil || string(got) != "not for containers" {
		t.Errorf("the credential is %q, %v", got, err)
	}
	for path, want := range map[string]string{
		"/cdh/resource/app/config/x":  "200 secret of d",
		"/cdh/resource/app/config/y":  "500 get resource failed",
		"/aa/token?token_type=kbs":    "500 get token failed: not enabled",
		"/aa/evidence?runtime_data=x": `200 {"attestation_report":`,
		"/info":                       `200 {"version":"Guest Components Version: `,
	} {
		response, err := http.Get("http://" + rest + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if got := fmt.Sprintf("%d %s", response.StatusCode, body); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %.200q, %v, want %q; the guest: %s", path, got, err, want, p.Output())
		}
	}
}
