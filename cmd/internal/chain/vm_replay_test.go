// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/vmtest"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// countedConfig is the measured configuration of a guest with a test chip and a volume whose counter keybroker keeps.
const countedConfig = `initdata = "/etc/casemate/initdata.toml"

[testsnp]
dir = "/etc/casemate/chip"

[volume.data]
key = "kbs:///app/volume/data"
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = 16777216
own_header = true
fs = "none"
replay = "kbs"
`

// countedGuest writes the image of such a guest, launched with d.
func countedGuest(ctx context.Context, t *testing.T, w *world, d fixture.InitData) string {
	t.Helper()
	b, err := openBuild()
	if err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(b.dir, "init-testsnp")
	if err := vmtest.Build(ctx, vmtest.Program{Package: "./cmd/casemate", Tags: "vmtest testsnp", Cgo: true}, init); err != nil {
		t.Fatal(err)
	}
	files := []vmtest.File{
		{Path: measuredConfig, Text: countedConfig, Perm: 0o644}, {Path: "/etc/resolv.conf", Perm: 0o644},
		{Path: "/etc/casemate/initdata.toml", HostPath: d.File, Perm: 0o644},
		{Path: "/tests/casemate", HostPath: init, Perm: 0o755}, {Path: "/tests/busybox", HostPath: "/bin/busybox", Perm: 0o755},
	}
	entries, err := os.ReadDir(w.chip.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files = append(files, vmtest.File{Path: "/etc/casemate/chip/" + e.Name(), HostPath: filepath.Join(w.chip.Dir, e.Name()), Perm: 0o600})
	}
	image := filepath.Join(t.TempDir(), "initramfs")
	if err := vmtest.WriteImage(ctx, image, b.kernel, init, files); err != nil {
		t.Fatal(err)
	}
	return image
}

// countedVM boots it with disks and the network up, and returns what runs a command in it and wants an exit code and a
// part of its output.
func countedVM(ctx context.Context, t *testing.T, image string, disks ...string) (vm *vmtest.VM, run func(code int, says string, args ...string)) {
	t.Helper()
	vm = bootRAM(ctx, t, vmtest.Config{Initrd: image, Disks: disks, MAC: cardMAC, MemoryMiB: 512, TimeLimit: vmLimit})
	run = func(code int, says string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		got, err := vm.Run(ctx, remote.Request{Run: args[0], Args: args[1:], Seconds: 120}, &out)
		if err != nil || got != code || !strings.Contains(out.String(), says) {
			t.Fatalf("%q: exit code %d, %v, want %d with %q: %s", args, got, err, code, says, out.Bytes())
		}
	}
	for _, args := range []string{"link set lo up", "link set eth0 up", "addr add 10.0.2.15/24 dev eth0"} {
		run(0, "", append([]string{"busybox", "ip"}, strings.Fields(args)...)...)
	}
	return vm, run
}

// TestVMReplay: keybroker counts a volume's openings and closings for attested guests of its workload. In another guest
// the newest disk opens and an image of it from before does not, until the owner resets the counter; then the image is
// the volume, and what was the newest disk does not open any more.
func TestVMReplay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
	defer cancel()
	w := newWorld(t, "--tls-name", gateway)
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path("initdata.toml"), fixture.InitDataOptions{
		Workload: workload, KBS: fromGuest(w.broker.URL), Cert: w.broker.Cert, Policy: w.policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	w.register(t, workload, d.Digest)
	w.secret(t, workload, "app/volume/data", strings.Repeat("k", 32))
	image := countedGuest(ctx, t, w, d)
	disk, err := vmtest.TempDisk(t.TempDir(), "volume", 48<<20)
	if err != nil {
		t.Fatal(err)
	}
	counter := func(args ...string) string {
		t.Helper()
		return string(w.must(t, "keybroker", append(append([]string{"counter"}, args...), append(w.broker.OwnerFlags(), "--workload", workload)...)...))
	}

	vm, run := countedVM(ctx, t, image, disk)
	run(0, "", "casemate", "volume", "create", "data", "/dev/vda") // generation 1
	run(0, "/dev/mapper/data", "casemate", "volume", "open", "data", "/dev/vda")
	run(0, "", "busybox", "sh", "-c", "echo first | dd of=/dev/mapper/data bs=4096 conv=sync,fsync")
	run(0, "", "casemate", "volume", "close", "data", "/dev/vda") // 3
	if err := vm.Stop(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "old")
	if raw, err := os.ReadFile(disk); err != nil || os.WriteFile(old, raw, 0o600) != nil {
		t.Fatal("copying the disk", err)
	}

	_, run = countedVM(ctx, t, image, disk, old)
	run(0, "/dev/mapper/data", "casemate", "volume", "open", "data", "/dev/vda")
	run(0, "first", "busybox", "head", "-c", "5", "/dev/mapper/data")
	run(0, "", "casemate", "volume", "close", "data", "/dev/vda") // 5
	run(1, "the disk is at generation 3, and the relying party has seen 5", "casemate", "volume", "open", "data", "/dev/vdb")
	if out := counter("list"); out != "       5  data\n" {
		t.Errorf("keybroker counts %q", out)
	}
	counter("reset", "data")
	run(0, "/dev/mapper/data", "casemate", "volume", "open", "data", "/dev/vdb") // 6
	run(0, "", "casemate", "volume", "close", "data")                            // as if the guest had died
	run(1, "the disk is at generation 5, and the relying party has seen 6", "casemate", "volume", "open", "data", "/dev/vda")
	run(0, "/dev/mapper/data", "casemate", "volume", "open", "data", "/dev/vdb")
	log := string(w.must(t, "keybroker", "log", "--state", w.broker.State))
	for _, want := range []string{"raised from 2 to 3", "raised from 5 to 6", "counter/data"} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit log says nothing of %q:\n%s", want, log)
		}
	}
	fmt.Println("vm: replay ok")
}
