// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/vmtest"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// ramGuest is what guests in an initramfs are made of: casemate as it runs programs for
// a test, Debian's modules and a provider of TSM reports that asks one of the programs.
type ramGuest struct {
	init, psp, extend8, tsm string // paths on this machine
	modules                 string // the guest's list
}

var buildRAMGuest = sync.OnceValues(func() (g ramGuest, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	started := time.Now()
	b, err := openBuild()
	if err != nil {
		return g, err
	}
	g = ramGuest{init: filepath.Join(b.dir, "init"), psp: filepath.Join(b.dir, "psp"), extend8: filepath.Join(b.dir, "extend8")}
	for out, p := range map[string]vmtest.Program{
		g.init:    {Package: "./cmd/casemate", Tags: "vmtest", Cgo: true},
		g.psp:     {Package: "./cmd/internal/chain/testdata/psp"},
		g.extend8: {Package: "./cmd/internal/chain/testdata/extend8"},
	} {
		if err := vmtest.Build(ctx, p, out); err != nil {
			return g, err
		}
	}
	if g.tsm, err = b.module(ctx); err != nil {
		return g, err
	}
	g.modules, err = vmtest.ModuleList(ctx, b.kernel)
	fmt.Printf("vm: programs and kernel module of the guests in RAM built in %.1fs\n", time.Since(started).Seconds())
	return g, err
})

// image writes the initramfs of a guest with this measured configuration.
func (g ramGuest) image(ctx context.Context, t *testing.T, config string, files ...vmtest.File) string {
	t.Helper()
	b, err := openBuild()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initramfs")
	files = append(files, vmtest.File{Path: measuredConfig, Text: config, Perm: 0o644}, vmtest.File{Path: "/etc/resolv.conf", Perm: 0o644})
	if err := vmtest.WriteImage(ctx, path, b.kernel, g.init, files); err != nil {
		t.Fatal(err)
	}
	return path
}

// snpImage is a guest of a world, whose test chip signs for it, with more in its measured
// configuration.
func (g ramGuest) snpImage(ctx context.Context, t *testing.T, w *podWorld, more string) string {
	t.Helper()
	const module = "/lib/modules/casemate_tsm.ko"
	files := []vmtest.File{
		{Path: module, HostPath: g.tsm, Perm: 0o644},
		{Path: "/etc/casemate/modules", Text: g.modules + module + "\n", Perm: 0o644},
		{Path: "/tests/psp", HostPath: g.psp, Perm: 0o755},
	}
	entries, err := os.ReadDir(w.chip.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files = append(files, vmtest.File{Path: "/tests/chip/" + e.Name(), HostPath: filepath.Join(w.chip.Dir, e.Name()), Perm: 0o600})
	}
	return g.image(ctx, t, "tee = \"snp\"\n"+more, files...)
}

// snpMachine is one with a chip. What the host launches it with comes to bootSNP.
func snpMachine(initramfs string, disks ...string) vmtest.Config {
	return vmtest.Config{Initrd: initramfs, Shared: disks, MAC: cardMAC, MemoryMiB: 512, TimeLimit: vmLimit}
}

// bootRAM starts a guest in RAM under Debian's kernel.
func bootRAM(ctx context.Context, t *testing.T, c vmtest.Config) *vmtest.VM {
	t.Helper()
	b, err := openBuild()
	if err != nil {
		t.Fatal(err)
	}
	if c.Kernel == "" {
		c.Kernel = b.kernel.Image
	}
	return bootVM(ctx, t, c)
}

// bootSNP starts a guest that was launched with hostData: that is what its chip signs.
func bootSNP(ctx context.Context, t *testing.T, c vmtest.Config, hostData string) *vmtest.VM {
	t.Helper()
	vm := bootRAM(ctx, t, c)
	asked, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = vm.Run(asked, remote.Request{Run: "psp", Args: []string{strings.Repeat(measurement, 48), hostData}, Seconds: int(vmLimit.Seconds())}, io.Discard)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return vm
}

// TestVMSNP: the same pod in a guest with SEV-SNP evidence out of the kernel's own
// configfs interface, its initdata bound by HOST_DATA, and all that a host may try with
// initdata, the clock and the address of the relying party.
func TestVMSNP(t *testing.T) {
	guest, err := buildRAMGuest()
	if err != nil {
		t.Fatal(err)
	}
	w := newPodWorld(t)
	d := w.podInitData(t, "initdata.toml", w.broker, vmPolicy)
	w.register(t, workload, d.Digest)
	image := guest.snpImage(t.Context(), t, w, "")
	empty := emptyDisk(t)
	t.Run("snp", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
		defer cancel()
		c := snpMachine(image, empty, d.Disk, emptyDisk(t))
		c.Clock = time.Now().UTC().Add(-12 * time.Hour).Format("2006-01-02T15:04:05") // keybroker's certificate is backdated by a day
		vm := bootSNP(ctx, t, c, d.HostData)
		check(t, "boot", func(t *testing.T) { expect(ctx, t, vm, "casemate: ready: ", "casemate: open: ") })
		g := agentOf(ctx, t, vm)
		check(t, "attested-pull", func(t *testing.T) {
			g.bringUp(ctx, t)
			g.runs(ctx, t, w.image)
			g.refuses(ctx, t)
			expect(ctx, t, vm, "casemate: clock: the host's time was behind ")
			g.ends(ctx, t)
		})
		fmt.Println("vm: attested with snp")
	})
	looser := w.podInitData(t, "looser.toml", w.broker, strings.Replace(vmPolicy, "CopyFileRequest := false", "CopyFileRequest := true ", 1))
	t.Run("initdata", func(t *testing.T) {
		t.Parallel()
		w.hostileInitData(t, image, d, looser)
	})
	t.Run("relying-party", func(t *testing.T) {
		t.Parallel()
		w.hostileRelyingParty(t, image, d, looser)
	})
}

// hostileInitData: the guest itself stops, before it asks for anything.
func (w *podWorld) hostileInitData(t *testing.T, image string, d, looser fixture.InitData) {
	for _, tt := range []struct {
		name  string
		disks []string
		says  string
	}{
		{"one-byte-changed", []string{flippedInitData(t, d)}, "matching initdata: the hardware keeps"},
		{"removed", []string{emptyDisk(t)}, "no file is configured and no disk has it"},
		{"two-disks", []string{d.Disk, looser.Disk}, "hold initdata"},
	} {
		check(t, tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
			defer cancel()
			vm := bootSNP(ctx, t, snpMachine(image, tt.disks...), d.HostData)
			expect(ctx, t, vm, "casemate: failed: ", "casemate: parked: initdata: ")
			parked(ctx, t, vm, "initdata: the guest's configuration or initdata was not accepted", tt.says)
		})
	}
}

// hostileRelyingParty: the guest opens its door by its own policy, asks and gets nothing.
func (w *podWorld) hostileRelyingParty(t *testing.T, image string, d, looser fixture.InitData) {
	other, err := fixture.StartBroker(t.Context(), program("keybroker"), w.path("other"), w.chip.Root(), "--tls-name", gateway)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	impostor := *other
	impostor.Cert = w.broker.Cert
	wrong := w.podInitData(t, "wrong.toml", &impostor, vmPolicy)
	const untrusted = "attest-untrusted: what answers is not the pinned relying party"
	for _, tt := range []struct {
		name, clock, reason string
		d                   fixture.InitData
		rule                string // of keybroker's log
	}{
		{name: "launched-with-other-initdata", d: looser, reason: "attest-denied: the relying party refused this guest", rule: "initdata-listed"},
		{name: "wrong-keybroker", d: wrong, reason: untrusted},
		{name: "time-1970", d: d, clock: "1970-01-01", reason: untrusted},
		{name: "time-2100", d: d, clock: "2100-01-01", reason: untrusted},
	} {
		check(t, tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
			defer cancel()
			c := snpMachine(image, tt.d.Disk)
			c.Clock = tt.clock
			vm := bootSNP(ctx, t, c, tt.d.HostData)
			expect(ctx, t, vm, "casemate: ready: ", "casemate: open: ")
			g := agentOf(ctx, t, vm)
			g.bringUp(ctx, t)
			wantFailed(ctx, t, g, w.image, tt.reason)
			if raised := strings.Contains(vm.Console.String(), "casemate: clock: "); raised != (tt.clock == "1970-01-01") {
				t.Errorf("the clock was raised: %v", raised)
			}
			if tt.rule == "" {
				return
			}
			record, err := w.broker.LastDenial(ctx, program("keybroker"))
			if err != nil || !strings.Contains(record, "rule   "+tt.rule+"\n") {
				t.Errorf("keybroker's log says %s, %v; want rule %s", record, err, tt.rule)
			}
			fmt.Printf("denied: %s\n", tt.rule)
		})
	}
}
