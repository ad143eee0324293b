// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const (
	volumeDevice = "/dev/claim" // as a pod's file names it
	volumeMark   = "kept plaintext "
	writeCommand = "echo '" + volumeMark + "' > /data/file; cat /data/file; grep -c /data /proc/mounts; ls /dev/claim 2>&1"
	readCommand  = "cat /data/file"
)

// startBroker is a relying party on this host's loopback that believes the test's signer.
func startBroker(t *testing.T) *kbstest.Server {
	broker := kbstest.Start()
	t.Cleanup(broker.Close)
	broker.Verify = func(evidence.Attestation, evidence.TEE, evidence.ReportData) error { return nil }
	broker.Put("pod/volume/data", bytes.Repeat([]byte("k"), 32))
	return broker
}

// volumeText is the measured configuration of a volume that may be made on a blank disk, and of its relying party.
func volumeText(broker *kbstest.Server) string {
	_, port, _ := strings.Cut(strings.TrimPrefix(broker.URL, "http://"), ":")
	return fmt.Sprintf(`
[kbs]
url = "http://%s:%s"
plain_http = true

[volume.data]
key = "kbs:///pod/volume/data"
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = 16777216
own_header = true
fs = "ext4"
mount = "/data"
device = %q
create = "first-use"
grant = "kbs:///pod/grant/data"
`, gateway, port, volumeDevice)
}

// bootWithVolume boots a guest with a disk and runs it up to its sandbox. It returns the disk as kata names it.
func bootWithVolume(t *testing.T, ctx context.Context, disk, text string) (*podMachine, *kata.Device) {
	t.Helper()
	m := podWith(t, ctx, Config{Disks: []string{disk}, MAC: cardMAC}, volumeFiles(t, text))
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"readlink", "-f", "/sys/block/vda/device"}, Seconds: 60}, &out)
	if err != nil || code != 0 {
		t.Fatalf("looking for the disk: exit code %d, %v", code, err)
	}
	function := filepath.Base(filepath.Dir(strings.TrimSpace(out.String()))) // 0000:00:03.0
	slot, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(function, "0000:00:"), ".0"), 16, 8)
	if err != nil {
		t.Fatalf("the disk is at %q", function)
	}
	return m, &kata.Device{Id: fmt.Sprintf("%02x", slot), Type: "blk", ContainerPath: volumeDevice}
}

// volumeFiles are a guest's, whose measured configuration ends with text.
func volumeFiles(t *testing.T, text string) []File {
	t.Helper()
	rego := tenantPolicy()
	for _, command := range []string{writeCommand, readCommand} {
		rego += fmt.Sprintf("\nCreateContainerRequest if input.OCI.Process.Args == [\"/bin/sh\", \"-c\", %q]\n", command)
	}
	files := append(podFiles(t, busyboxImage(t), rego, "registry.example"), File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755})
	for i, f := range files {
		if f.Path == "/etc/casemate/casemate.toml" {
			files[i].Text += text
		}
	}
	return files
}

// podWith boots a guest and runs it up to its pause container.
func podWith(t *testing.T, ctx context.Context, c Config, files []File) *podMachine {
	t.Helper()
	vm := bootWith(t, ctx, c, files...)
	if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
		t.Fatal(err)
	}
	m := &podMachine{vm: vm, called: map[string]map[codes.Code]bool{}}
	m.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm))
	m.makeSandbox(t, ctx)
	m.network(t, ctx)
	m.makePause(t, ctx)
	return m
}

// withVolume adds a block device to a request as kata's runtime does.
func withVolume(r *kata.CreateContainerRequest, d *kata.Device) *kata.CreateContainerRequest {
	r.Devices = append(r.Devices, d)
	r.OCI.Linux.Devices = append(r.OCI.Linux.Devices, &kata.LinuxDevice{Path: d.ContainerPath, Type: "b", Major: 254, Minor: 0})
	r.OCI.Linux.Resources.Devices = append(r.OCI.Linux.Resources.Devices, &kata.LinuxDeviceCgroup{Allow: true, Type: "b", Major: 254, Minor: 0, Access: "rwm"})
	return r
}

// TestVMPodVolume: a volume named in measured configuration is made on a blank disk at its first use, by leave of the
// relying party, mounted in the container that asks for its device, closed behind it, and opens in another guest. A
// blank disk without leave is left as it is.
func TestVMPodVolume(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	disk, err := TempDisk(t.TempDir(), "volume", 96<<20)
	if err != nil {
		t.Fatal(err)
	}
	broker := startBroker(t)
	check(t, "volume/blank", func(t *testing.T) {
		m, d := bootWithVolume(t, ctx, disk, volumeText(broker))
		if _, err := m.CreateContainer(ctx, withVolume(podContainer("write", "container", "/bin/sh", "-c", writeCommand), d)); err == nil || !strings.Contains(err.Error(), `volume "/dev/claim" could not be opened`) {
			t.Errorf("a blank disk without leave: %v", err)
		}
		broker.PutOnce("pod/grant/data", []byte("other"))
		if _, err := m.CreateContainer(ctx, withVolume(podContainer("write", "container", "/bin/sh", "-c", writeCommand), d)); err == nil {
			t.Error("leave for another volume")
		}
		if raw, err := os.ReadFile(disk); err != nil || len(bytes.Trim(raw, "\x00")) > 0 {
			t.Errorf("the disk was written to: %v", err)
		}
		other := &kata.Device{Id: d.Id, Type: "blk", ContainerPath: "/dev/other"}
		if _, err := m.CreateContainer(ctx, withVolume(podContainer("write", "container", "/bin/sh", "-c", writeCommand), other)); err == nil || !strings.Contains(err.Error(), "no volume of this guest") {
			t.Errorf("a device that is not configured: %v", err)
		}
		broker.PutOnce("pod/grant/data", []byte("data\n"))
		m.start(t, ctx, withVolume(podContainer("write", "container", "/bin/sh", "-c", writeCommand), d))
		m.wantOutput(t, ctx, "write", "", volumeMark+"\n1\nls: /dev/claim: No such file or directory\n")
		m.wantMapped(t, ctx, true)
		m.remove(t, ctx, "write")
		m.wantMapped(t, ctx, false)
		m.destroyWithScratch(t, ctx)
	})
	if t.Failed() {
		return
	}
	check(t, "volume/again", func(t *testing.T) {
		m, d := bootWithVolume(t, ctx, disk, volumeText(broker))
		for _, id := range []string{"one", "two"} { // both have it
			m.start(t, ctx, withVolume(podContainer(id, "container", "/bin/sh", "-c", readCommand), d))
			m.wantOutput(t, ctx, id, "", volumeMark+"\n")
		}
		m.destroyWithScratch(t, ctx)
	})
	check(t, "volume/sealed", func(t *testing.T) {
		raw, err := os.ReadFile(disk)
		if err != nil || bytes.Contains(raw, []byte(volumeMark)) {
			t.Errorf("plaintext on the disk, %v", err)
		}
	})
}

// wantMapped looks whether the volume is open in the guest.
func (m *podMachine) wantMapped(t *testing.T, ctx context.Context, want bool) {
	t.Helper()
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"ls", "/dev/mapper"}, Seconds: 60}, &out)
	if err != nil || code != 0 || strings.Contains(out.String(), "data") != want {
		t.Errorf("exit code %d, %v: %s, want the volume mapped: %v", code, err, out.Bytes(), want)
	}
}
