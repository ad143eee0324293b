// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const (
	sealKeyID   = "kbs:///pod/seal/1"
	runWrite    = "echo 'kept plaintext one' > /data/f; echo 'kept plaintext two' > /more/f; cat /data/f /more/f; grep -c -e ' /data ext4' -e ' /more ext4' /proc/mounts"
	runRead     = "cat /data/f /more/f; exit 5"
	runVolumes  = "kept plaintext one\nkept plaintext two\n"
	runDiskSize = 64 << 20
)

// sealedKey is a sealed secret that stands for the relying party's secret name; its signer's public half is at the relying
// party.
func sealedKey(t *testing.T, broker *kbstest.Server, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	broker.Put(strings.TrimPrefix(sealKeyID, "kbs:///"), public)
	sealed, err := keyprovider.SealVault(key, sealKeyID, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(sealed)
}

// runVolume is the measured configuration of a volume of casemate run.
func runVolume(name, key, device, mount string) string {
	return fmt.Sprintf(`
[volume.%s]
key = %q
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = 16777216
own_header = true
fs = "ext4"
mount = %q
device = %q
create = "first-use"
grant = "kbs:///pod/grant/%s"
`, name, key, mount, device, name)
}

// TestVMRunVolumes: casemate run gives its container the volumes that measured configuration names, one with a key of
// the relying party and one whose key is a sealed secret, makes them by leave of the relying party alone, and closes
// them however the run ends.
func TestVMRunVolumes(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	var disks []string
	for _, name := range []string{"data", "more"} {
		disk, err := TempDisk(t.TempDir(), name, runDiskSize)
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, disk)
	}
	broker := startBroker(t)
	broker.Put("pod/volume/sealed", bytes.Repeat([]byte("s"), 32))
	_, port, _ := strings.Cut(strings.TrimPrefix(broker.URL, "http://"), ":")
	image := busyboxImage(t)
	registry := gateway + ":" + startRegistry(t, image)
	files := append(podFiles(t, image, tenantPolicy(), registry),
		File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755}, File{Path: "/tests/casemate", HostPath: img.init, Perm: 0o755})
	for i, f := range files {
		if f.Path == "/etc/casemate/casemate.toml" {
			files[i].Text += fmt.Sprintf("\n[kbs]\nurl = \"http://%s:%s\"\nplain_http = true\n", gateway, port) +
				runVolume("data", "kbs:///pod/volume/data", "/dev/vda", "/data") +
				runVolume("more", sealedKey(t, broker, "kbs:///pod/volume/sealed"), "/dev/vdb", "/more")
		}
	}
	vm := bootWith(t, ctx, Config{Disks: disks, MAC: cardMAC, MemoryMiB: 384}, files...)
	if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
		t.Fatal(err)
	}
	inVM := func(args ...string) (int, string) {
		t.Helper()
		var out bytes.Buffer
		code, err := vm.Run(ctx, remote.Request{Run: args[0], Args: args[1:], Seconds: 120}, &out)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return code, out.String()
	}
	for _, args := range []string{"link set lo up", "link set eth0 up", "addr add 10.0.2.15/24 dev eth0"} {
		if code, out := inVM(append([]string{"busybox", "ip"}, strings.Fields(args)...)...); code != 0 {
			t.Fatalf("ip %s: %s", args, out)
		}
	}
	run := func(t *testing.T, command string, want int, says string) {
		t.Helper()
		code, out := inVM("casemate", "run", registry+"/pod/busybox:1", "--", "/bin/sh", "-c", command)
		if code != want || !strings.Contains(out, says) {
			t.Errorf("exit code %d, want %d with %q: %s", code, want, says, out)
		}
		if _, out := inVM("busybox", "ls", "/dev/mapper"); strings.Contains(out, "data") || strings.Contains(out, "more") {
			t.Errorf("still mapped: %s", out)
		}
	}
	check(t, "run/no-leave", func(t *testing.T) {
		run(t, runWrite, 1, "there is no leave to make it")
		for _, disk := range disks {
			if raw, err := os.ReadFile(disk); err != nil || len(bytes.Trim(raw, "\x00")) > 0 {
				t.Errorf("a disk was written to: %v", err)
			}
		}
	})
	check(t, "run/one-leave", func(t *testing.T) { // the first volume is open when the second fails
		broker.PutOnce("pod/grant/data", []byte("data"))
		run(t, runWrite, 1, "volume more is on a blank disk")
	})
	check(t, "run/write", func(t *testing.T) {
		broker.PutOnce("pod/grant/more", []byte("more"))
		run(t, runWrite, 0, runVolumes+"2\n")
	})
	check(t, "run/read", func(t *testing.T) { run(t, runRead, 5, runVolumes) })
	check(t, "run/another-signer", func(t *testing.T) {
		sealedKey(t, broker, "kbs:///pod/volume/sealed") // replaces the verification key
		run(t, runRead, 1, "volume more")
	})
	check(t, "run/sealed", func(t *testing.T) {
		for _, disk := range disks {
			if raw, err := os.ReadFile(disk); err != nil || bytes.Contains(raw, []byte("kept plaintext")) {
				t.Errorf("plaintext on the disk, %v", err)
			}
		}
	})
}
