// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/vmtest"
)

// registerDevice registers the workload for a guest with SEV-SNP and a TPM with this key
// beside it.
func (w *podWorld) registerDevice(t *testing.T, digest, key string) {
	t.Helper()
	file := w.path("device.toml")
	text := fmt.Sprintf("id = %q\ntees = [\"snp\"]\ndevices = [\"tpm\"]\ninitdata = [%q]\ntest_roots = true\n\n[snp]\nmeasurements = [%q]\naccept_missing_crl = true\n\n[tpm]\nattestation_keys = ['''\n%s''']\n",
		workload, digest, strings.Repeat(measurement, 48), key)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "keybroker", append([]string{"register", file}, w.broker.OwnerFlags()...)...)
}

// TestVMDevices: a guest with SEV-SNP evidence out of the kernel's own configfs interface and
// a TPM out of its driver, both bound to one handshake; without either it gets nothing.
func TestVMDevices(t *testing.T) {
	guest, err := buildRAMGuest()
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBuild()
	if err != nil {
		t.Fatal(err)
	}
	w, tpm := newPodWorld(t), makeTPM(t)
	d := w.podInitData(t, "initdata.toml", w.broker, vmPolicy)
	image := guest.snpImage(t.Context(), t, w, "devices = [\"tpm\"]\n\n[eventlog]\nenable = true\nrequire = true\n")
	machine := func(state string) vmtest.Config {
		c := snpMachine(image, d.Disk)
		c.Kernel, c.TPM = b.kernel.Compressed, state
		return c
	}
	check(t, "without-the-device", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
		defer cancel()
		vm := bootSNP(ctx, t, machine(""), d.HostData)
		expect(ctx, t, vm, "casemate: ready: ", "casemate: parked: tee: ")
	})
	ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
	defer cancel()
	vm := bootSNP(ctx, t, machine(tpm.state), d.HostData)
	expect(ctx, t, vm, "casemate: ready: ", "casemate: open: ")
	g := agentOf(ctx, t, vm)
	g.bringUp(ctx, t)
	check(t, "device-not-registered", func(t *testing.T) {
		w.register(t, workload, d.Digest)
		denied(ctx, t, w, g, "devices", "")
		w.toldOfItsBoot(t)
	})
	check(t, "another-key", func(t *testing.T) {
		w.registerDevice(t, d.Digest, makeTPM(t).key)
		denied(ctx, t, w, g, "attestation-key-listed", "")
	})
	check(t, "attested-pull", func(t *testing.T) {
		w.registerDevice(t, d.Digest, tpm.key)
		g.runs(ctx, t, w.image)
		g.ends(ctx, t)
	})
	fmt.Println("vm: attested with snp and a TPM beside it")
}

// toldOfItsBoot: the refused guest has told keybroker how long its kernel took, in order.
func (w *podWorld) toldOfItsBoot(t *testing.T) {
	t.Helper()
	lines := string(w.must(t, "keybroker", "log", "--state", w.broker.State, "--json"))
	ids := regexp.MustCompile(`"id":"(\w+)","event":"report"`).FindAllStringSubmatch(lines, -1)
	if ids == nil {
		t.Fatalf("no guest has told of itself:\n%s", lines)
	}
	report := string(w.must(t, "keybroker", "log", "--state", w.broker.State, "--guest", ids[len(ids)-1][1]))
	var places []int
	for _, want := range []string{
		`"firmware": "it left no record`, `"stage": "kernel: until its memory was set up"`, `"stage": "kernel: until the initrd was unpacked"`,
		`"stage": "kernel: until the first process"`, `"stage": "find the TEE"`, `"stage": "handshake with the relying party"`, `"bytes": `,
	} {
		place := strings.Index(report, want)
		if place < 0 {
			t.Errorf("no %s in", want)
		}
		places = append(places, place)
	}
	if !slices.IsSorted(places) {
		t.Error("the stages are not in order in")
	}
	if t.Failed() {
		t.Logf("the guest's report:\n%s", report)
	}
}
