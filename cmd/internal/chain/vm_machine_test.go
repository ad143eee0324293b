// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/vmtest"
)

// namedState is how long a guest may take until it has said what is wrong: a minute on
// processors of its own, which these machines share.
const namedState = 2 * time.Minute

// TestVMHostileMachine: machines of which a guest that attests by a TPM can expect
// nothing. Each ends in a named state, and none asks for a key.
func TestVMHostileMachine(t *testing.T) {
	guests, err := buildTPMGuests()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := buildRAMGuest(); err != nil {
		t.Fatal(err)
	}
	w := newPodWorld(t)
	d := w.podInitData(t, "initdata.toml", w.broker, vmPolicy)
	machine := vmtest.Config{Initrd: guests.good.initramfs, Shared: []string{guests.good.root, d.Disk}, TimeLimit: vmLimit}
	for name, run := range map[string]func(context.Context, *testing.T, vmtest.Config){
		"no-tpm-and-128-mib": noTPM, "zero-byte-disks": zeroByteDisks, "another-first-program": anotherFirstProgram, "register-8-used": registerUsed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), namedState)
			defer cancel()
			started := time.Now()
			run(ctx, t, machine)
			fmt.Printf("vm: %s in %.1fs\n", strings.TrimPrefix(t.Name(), "TestVM"), time.Since(started).Seconds())
		})
	}
	t.Cleanup(func() { // after all of them
		out, err := fixture.Run(context.Background(), program("keybroker"), "log", "--state", w.broker.State)
		if err != nil || strings.Contains(string(out), "attest") {
			t.Errorf("one of the machines has asked keybroker, or nobody knows: %v\n%s", err, out)
		}
	})
}

// noTPM: no device to attest with, and hardly any memory.
func noTPM(ctx context.Context, t *testing.T, c vmtest.Config) {
	c.MemoryMiB = 128
	vm := bootRAM(ctx, t, c)
	expect(ctx, t, vm, "casemate: ready: ", "casemate: parked: tee: ")
	parked(ctx, t, vm, "tee: the machine has not the TEE that the guest was made for", "detecting a TPM")
}

// zeroByteDisks: nothing that could be the root.
func zeroByteDisks(ctx context.Context, t *testing.T, c vmtest.Config) {
	c.Shared = []string{emptyDisk(t), emptyDisk(t)}
	expect(ctx, t, bootRAM(ctx, t, c), "casemate: parked: boot-root-device: ")
}

// anotherFirstProgram: the kernel itself obeys rdinit=, and finds no shell.
func anotherFirstProgram(ctx context.Context, t *testing.T, c vmtest.Config) {
	c.Append = "rdinit=/bin/sh init=/bin/sh root=/dev/vda1"
	vm := bootRAM(ctx, t, c)
	expect(ctx, t, vm, "Kernel panic - not syncing: ")
	if err := vm.Wait(ctx); err != nil {
		t.Error(err)
	}
	if strings.Contains(vm.Console.String(), "casemate: ") {
		t.Error("the guest went on")
	}
}

// registerUsed: somebody has extended register 8 before casemate runs.
func registerUsed(ctx context.Context, t *testing.T, c vmtest.Config) {
	guest, err := buildRAMGuest()
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBuild() // both are made by now
	if err != nil {
		t.Fatal(err)
	}
	tampered := guest
	tampered.init = guest.extend8
	c.Initrd = tampered.image(ctx, t, tpmConfig, vmtest.File{Path: "/casemate", HostPath: guest.init, Perm: 0o755})
	c.Kernel, c.TPM, c.MemoryMiB = b.kernel.Compressed, makeTPM(t).state, 512
	vm := bootRAM(ctx, t, c)
	expect(ctx, t, vm, "casemate: ready: ", "casemate: parked: initdata: ")
	parked(ctx, t, vm, "initdata: the guest's configuration or initdata was not accepted", "recording initdata: PCR 8 is ")
}
