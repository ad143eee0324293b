// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/rootfs/vmtest"
)

// vmLimit bounds one machine's life: an emulated one that shares two processors with
// others is slow.
const vmLimit = 6 * time.Minute

// TestVMAttested boots the released guest as its owner built it, with a TPM: keybroker
// knows from the files what the TPM will quote, and nothing from the guest.
func TestVMAttested(t *testing.T) {
	guests, err := buildTPMGuests()
	if err != nil {
		t.Fatal(err)
	}
	w, tpm := newPodWorld(t), makeTPM(t)
	d := w.podInitData(t, "initdata.toml", w.broker, vmPolicy)
	w.registerTPM(t, d, guests.good.uki, tpm)
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
		defer cancel()
		c := tpmMachine(t, guests.good.uki, guests.good.root, tpm, d)
		attested(ctx, t, w, bootVM(ctx, t, c))
		check(t, "scratch", func(t *testing.T) { sealed(t, c.Disks[0]) })
	})
	t.Run("bare", func(t *testing.T) {
		t.Parallel()
		bareGuest(t, guests.bare)
	})
	var asking sync.Mutex // so that keybroker's last denial is this guest's
	for _, tt := range []struct {
		name      string
		uki, root string
		append    string
		tpm       ownedTPM
		pcr, rule string
	}{
		{name: "changed-command-line", uki: guests.good.uki, root: guests.good.root, append: vmtest.CommandLine + " init=/bin/sh extra", tpm: tpm, rule: "pcrs", pcr: "PCR9 "},
		{name: "changed-initramfs", uki: guests.changed, root: guests.good.root, tpm: tpm, rule: "pcrs", pcr: "PCR4 "},
		{name: "rebuilt-root", uki: guests.rebuilt.uki, root: guests.rebuilt.root, tpm: tpm, rule: "pcrs", pcr: "PCR4 "},
		{name: "another-attestation-key", uki: guests.good.uki, root: guests.good.root, tpm: makeTPM(t), rule: "attestation-key-listed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
			defer cancel()
			c := tpmMachine(t, tt.uki, tt.root, tt.tpm, d)
			c.Append = tt.append
			vm := bootVM(ctx, t, c)
			check(t, "denied", func(t *testing.T) {
				expect(ctx, t, vm, "casemate: ready: ", "casemate: open: ")
				g := agentOf(ctx, t, vm)
				g.bringUp(ctx, t)
				asking.Lock()
				defer asking.Unlock()
				denied(ctx, t, w, g, tt.rule, tt.pcr)
			})
		})
	}
}

// attested is the life of a pod in a guest that keybroker takes.
func attested(ctx context.Context, t *testing.T, w *podWorld, vm *vmtest.VM) {
	check(t, "boot", func(t *testing.T) {
		expect(ctx, t, vm, "casemate: ready: ", "casemate: scratch: ", "casemate: open: ")
	})
	g := agentOf(ctx, t, vm)
	check(t, "network", func(t *testing.T) { g.bringUp(ctx, t) })
	check(t, "attested-pull", func(t *testing.T) {
		defer func() {
			if t.Failed() {
				record, err := w.broker.LastDenial(context.WithoutCancel(ctx), program("keybroker"))
				t.Logf("keybroker's last denial: %s, %v", record, err)
			}
		}()
		g.runs(ctx, t, w.image)
	})
	check(t, "refusals", func(t *testing.T) { g.refuses(ctx, t) })
	check(t, "off", func(t *testing.T) { g.ends(ctx, t) })
	check(t, "timeline", func(t *testing.T) { timeline(t, vm.Console.String()) })
	fmt.Println("vm: attested")
}

// sealed: the layers and what the container wrote went to the disk, and nobody reads them there.
func sealed(t *testing.T, disk string) {
	t.Helper()
	raw, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"hello from the measured guest", "BusyBox v"} {
		if bytes.Contains(raw, []byte(text)) {
			t.Errorf("the host reads %q on the disk", text)
		}
	}
	if written := len(raw) - bytes.Count(raw, []byte{0}); written < 1<<20 {
		t.Errorf("%d bytes on the disk are not zero: nothing lies on scratch", written)
	}
}

// denied: the guest asks, keybroker refuses it for the one rule, and the host reads that
// it was refused and not why.
func denied(ctx context.Context, t *testing.T, w *podWorld, g *podGuest, rule, found string) {
	t.Helper()
	wantFailed(ctx, t, g, w.image, "attest-denied: the relying party refused this guest")
	record, err := w.broker.LastDenial(ctx, program("keybroker"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(record, "rule   "+rule+"\n") || !strings.Contains(record, found) {
		t.Errorf("keybroker's log says\n%s\nwant rule %s and %q", record, rule, found)
	}
	for line := range strings.Lines(g.vm.Console.String()) {
		if strings.Contains(line, rule) || found != "" && strings.Contains(line, found) {
			t.Errorf("the host reads %q", line)
		}
	}
	fmt.Println(strings.TrimSpace("denied: " + rule + " " + found))
}

// wantFailed: a container is not made, for a reason that the console has too.
func wantFailed(ctx context.Context, t *testing.T, g *podGuest, image, reason string) {
	t.Helper()
	if err := g.create(ctx, image); err == nil || !strings.Contains(err.Error(), "Failed to pull image "+image+": "+reason) {
		t.Fatalf("got %v, want %q", err, reason)
	}
	expect(ctx, t, g.vm, "casemate: log: "+reason)
}

// timeline: every stage is told in its order, with the time that it took and when it ended.
func timeline(t *testing.T, console string) {
	t.Helper()
	at := time.Duration(0)
	for _, stage := range []string{
		"root-pin", "root-device", "root-verity", "root-switch", "mounts", "modules", "seal", "find the TEE",
		"check initdata against a fresh report", "open scratch", "load the agent policy", "network interface", "network routes", "attest to the relying party",
	} {
		found := regexp.MustCompile(`casemate: step: ` + stage + ` (\S+) at (\S+)\n`).FindStringSubmatch(console)
		if found == nil {
			t.Errorf("no stage %q", stage)
			continue
		}
		end, err := time.ParseDuration(found[2])
		if _, err2 := time.ParseDuration(found[1]); err != nil || err2 != nil || end < at {
			t.Errorf("stage %q: %q, %v, behind one at %s", stage, found, err, at)
		}
		at = end
	}
}
