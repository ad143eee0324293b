// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// bareConfig makes a guest that sets up its own network.
const bareConfig = "\n[network]\nmode = \"dhcp\"\n"

// bareGuest is a measured guest without kata: it gets its address by DHCP, attests by its TPM, pulls an encrypted and
// signed image and runs it as initdata declares, restarts what ends, and ends in order when the power button is pressed. What
// its container has to say goes to its owner over the network; the host reads states alone.
func bareGuest(t *testing.T, guest guestFiles) {
	ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
	defer cancel()
	heard := make(chan string, 16)
	owner := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.URL.Path }))
	defer owner.Close()
	w, tpm := newPodWorld(t), makeTPM(t)
	address := "http://" + fromGuest(strings.TrimPrefix(owner.URL, "http://"))
	tell := "/bin/busybox wget -q -O /dev/null " + address
	d := w.containerInitData(t, "bare.toml", fmt.Sprintf("[[container]]\nname = 'app'\nimage = %q\nargs = [%q]\nrestart = 'always'\n\n[[container]]\nname = 'job'\nimage = %q\nargs = ['echo canary job; exit 3']\n",
		w.image, `trap '`+tell+`/bye; exit 0' TERM; echo canary output; `+tell+`/up/$(/bin/busybox grep -c "^nameserver 10.0.2.3$" /etc/resolv.conf)/$(/bin/busybox id -u); while :; do /bin/busybox sleep 0.2; done`, w.image))
	w.registerTPM(t, d, guest.uki, tpm)
	c := tpmMachine(t, guest.uki, guest.root, tpm, d)
	vm := bootVM(ctx, t, c)
	defer func() {
		if t.Failed() {
			record, err := w.broker.LastDenial(context.WithoutCancel(ctx), program("keybroker"))
			t.Logf("keybroker's last denial: %s, %v", record, err)
		}
	}()
	check(t, "network", func(t *testing.T) {
		expect(ctx, t, vm, "casemate: ready: ", "casemate: scratch: ", "casemate: network: eth0 10.0.2.15/24")
	})
	check(t, "containers", func(t *testing.T) {
		expect(ctx, t, vm, "casemate: container: app running", "casemate: container: job exited")
		select {
		case got := <-heard:
			if got != "/up/1/0" {
				t.Errorf("the container says %q", got)
			}
		case <-ctx.Done():
			t.Fatal("the container says nothing")
		}
	})
	check(t, "no-kata", func(t *testing.T) {
		if conn, err := vm.DialOnce(ctx, 1024); err == nil {
			_ = conn.Close()
			t.Error("the guest serves the kata API")
		}
	})
	check(t, "power-button", func(t *testing.T) {
		if err := vm.PowerButton(ctx); err != nil {
			t.Fatal(err)
		}
		if err := vm.Wait(ctx); err != nil {
			t.Error(err)
		}
		if len(heard) != 1 || <-heard != "/bye" {
			t.Errorf("the container was not asked to end: %d words", len(heard))
		}
		expect(ctx, t, vm, "casemate: container: app stopped", "casemate: leaving: ")
	})
	console := vm.Console.String()
	for _, text := range []string{"canary", "casemate: failed", "casemate: parked", "sha256:"} {
		if strings.Contains(console, text) {
			t.Errorf("the console says %q", text)
		}
	}
	if lines := regexp.MustCompile(`casemate: container: .*`).FindAllString(console, -1); len(lines) > 8 {
		t.Errorf("%d lines about containers: %q", len(lines), lines)
	}
	sealed(t, c.Disks[0])
}

// containerInitData writes a document that declares containers.
func (w *podWorld) containerInitData(t *testing.T, name, containers string) fixture.InitData {
	t.Helper()
	registry := fromGuest(w.registry.Addr)
	policy, err := fixture.SignedBy(registry, w.path("owner.pub"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path(name), fixture.InitDataOptions{
		Workload: workload, KBS: fromGuest(w.broker.URL), Cert: w.broker.Cert, Policy: policy, Casemate: fmt.Sprintf("[image]\ninsecure_registries = [%q]\n\n%s", registry, containers),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
