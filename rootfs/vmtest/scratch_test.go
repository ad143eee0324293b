// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// scratchCommand leaves marked text in the container's own layer and in its volume.
const (
	scratchMark = "marked plaintext "
	// sizedCommand fills a volume of 8 MiB, and looks what else it holds.
	sizedCommand = "head -c 20000000 /dev/zero > /data/big || echo full; /bin/busybox wc -c < /data/big; ls /data"
	// fullCommand fills a disk of 32 MiB that was never used before.
	fullCommand    = "cat /data/f 2> /dev/null; head -c 40000000 /dev/zero > /data/big || echo full"
	scratchCommand = "echo '" + scratchMark + "' > /own; echo '" + scratchMark + "' > /data/f; cat /own /data/f"
)

// withScratch adds a disk of the machine as scratch to the measured configuration.
func withScratch(files []File, minSize int64) []File {
	for i, f := range files {
		if f.Path == "/etc/casemate/casemate.toml" {
			files[i].Text += fmt.Sprintf("\n[scratch]\ndevice = \"serial:disk0\"\ncipher = \"aes-xts-plain64\"\nintegrity = \"hmac(sha256)\"\nmin_size = %d\n", minSize)
		}
	}
	return files
}

// scratchPolicy allows the containers of the tests with scratch.
func scratchPolicy() string {
	const rule = "\nCreateContainerRequest if input.OCI.Process.Args == [\"/bin/sh\", \"-c\", %q]\n"
	return tenantPolicy() + fmt.Sprintf(rule+rule+rule, scratchCommand, sizedCommand, fullCommand)
}

// TestVMScratchPod runs a pod whose layers, container files and emptyDir lie on an encrypted disk with integrity, which
// is unmounted and closed when the pod ends. Nothing of it can be read on the disk.
func TestVMScratchPod(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	disk, err := TempDisk(t.TempDir(), "scratch", 128<<20)
	if err != nil {
		t.Fatal(err)
	}
	img := busyboxImage(t)
	files := append(withScratch(podFiles(t, img, scratchPolicy(), "registry.example"), 128<<20), File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755})
	empty, err := TempDisk(t.TempDir(), "emptydir", 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	vm := bootWith(t, ctx, Config{Disks: []string{disk, empty}}, files...)
	check(t, "scratch/open", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(vm.Console.String(), "casemate: scratch: ") {
			t.Error("the console says nothing of scratch")
		}
	})
	if t.Failed() {
		return
	}
	m := &podMachine{vm: vm, called: map[string]map[codes.Code]bool{}}
	m.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm))
	for _, c := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"sandbox", m.makeSandbox}, {"mounts", m.scratchMounts}, {"programs", m.onlyProgram}, {"pause", m.makePause}, {"run", m.runOnScratch}, {"size", m.sizedOnScratch}, {"disk", m.emptyDirOnDisk}, {"off", m.destroyWithScratch},
	} {
		check(t, "scratch/"+c.name, func(t *testing.T) { c.run(t, ctx) })
		if t.Failed() {
			return
		}
	}
	check(t, "scratch/sealed", func(t *testing.T) {
		for _, disk := range []string{disk, empty} {
			raw, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, []byte(scratchMark)) || bytes.Contains(raw, []byte("BusyBox v")) {
				t.Error("plaintext on the disk")
			}
			if len(bytes.Trim(raw[1<<20:], "\x00")) == 0 {
				t.Error("nothing was written to the disk")
			}
		}
	})
}

// scratchMounts looks at the guest from outside of the pod.
func (m *podMachine) scratchMounts(t *testing.T, ctx context.Context) {
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"cat", "/proc/mounts"}, Seconds: 60}, &out)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	for _, point := range []string{"/run/casemate/scratch", "/run/casemate/image", podDir} {
		if !strings.Contains(out.String(), "/dev/mapper/casemate-scratch "+point+" ext4 rw,nosuid,nodev,noatime") {
			t.Errorf("%s does not lie on scratch:\n%s", point, out.Bytes())
		}
	}
}

// onlyProgram: the guest has made its scratch without a program but casemate, since it holds none. The busybox is this
// test's own.
func (m *podMachine) onlyProgram(t *testing.T, ctx context.Context) {
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"find", "/", "-xdev", "-type", "f", "-perm", "/111"}, Seconds: 60}, &out)
	if got := strings.Fields(out.String()); err != nil || code != 0 || !slices.Equal(got, []string{"/tests/busybox", "/init"}) && !slices.Equal(got, []string{"/init", "/tests/busybox"}) {
		t.Errorf("exit code %d, %v: programs %q", code, err, got)
	}
}

// runOnScratch runs a container with an emptyDir that is not of memory.
func (m *podMachine) runOnScratch(t *testing.T, ctx context.Context) {
	const local = podDir + "/sandbox/local/data"
	r := podContainer("scratch", "container", "/bin/sh", "-c", scratchCommand)
	r.Storages = append(r.Storages, &kata.Storage{Driver: "local", Source: "local", Fstype: "local", MountPoint: local, Options: []string{"mode=0777"}})
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: local, Destination: "/data", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
	m.start(t, ctx, r)
	m.wantOutput(t, ctx, "scratch", "", scratchMark+"\n"+scratchMark+"\n")
	m.wantExit(t, ctx, "scratch", "", 0)
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"grep", "-r", "-l", scratchMark, "/run/casemate/scratch/pod"}, Seconds: 60}, &out)
	if err != nil || code != 0 || !strings.Contains(out.String(), "/run/casemate/scratch/pod/scratch/upper/own\n") ||
		!strings.Contains(out.String(), "/run/casemate/scratch/pod/sandbox/local/data/f\n") {
		t.Errorf("exit code %d, %v: %s", code, err, out.Bytes())
	}
}

// sizedOnScratch runs a container with an emptyDir that has a size: writes behind it fail as on a full disk, what is on
// scratch beside it does not notice, and the room is free again behind the container.
func (m *podMachine) sizedOnScratch(t *testing.T, ctx context.Context) {
	const at, size = podDir + "/sandbox/local/sized", 8 << 20
	request := func(id string, size int64) *kata.CreateContainerRequest {
		r := podContainer(id, "container", "/bin/sh", "-c", sizedCommand)
		r.Storages = append(r.Storages, &kata.Storage{Driver: "local", Source: "local", Fstype: "local", MountPoint: at, Options: []string{"mode=0777", fmt.Sprint("size=", size)}})
		r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: at, Destination: "/data", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
		return r
	}
	free := func() int {
		var out bytes.Buffer
		code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"stat", "-f", "-c", "%f", "/run/casemate/scratch"}, Seconds: 60}, &out)
		n, err2 := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil || err2 != nil || code != 0 {
			t.Fatalf("exit code %d, %v, %v", code, err, err2)
		}
		return n
	}
	before := free()
	if _, err := m.CreateContainer(ctx, request("large", 1<<30)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a size that scratch has no room for: %v", err)
	}
	m.start(t, ctx, request("sized", size))
	m.wantOutput(t, ctx, "sized", "", "full\n8388608\nbig\n")
	m.wantExit(t, ctx, "sized", "", 0)
	use, err := m.GetVolumeStats(ctx, &kata.VolumeStatsRequest{VolumeGuestPath: at})
	if err != nil || use.Usage[0].Available != 0 {
		t.Errorf("how full it is: %v, %v", use, err)
	}
	during := free()
	m.remove(t, ctx, "sized")
	after := free()
	for end := time.Now().Add(5 * time.Second); after < before && time.Now().Before(end); after = free() { // the loop device lets go in its own time
		time.Sleep(100 * time.Millisecond)
	}
	if before-during < size/4096 || after < before {
		t.Errorf("%d blocks free on scratch, %d with the volume, %d afterwards", before, during, after)
	}
}

// emptyDirOnDisk runs a container with kata's encrypted emptyDir: it has the room of its disk and no more, and nothing is
// mapped behind its container.
func (m *podMachine) emptyDirOnDisk(t *testing.T, ctx context.Context) {
	const at = podDir + "/sandbox/storage/L2Rldi92ZGI="
	request := func(command string) *kata.CreateContainerRequest {
		r := podContainer("disk", "container", "/bin/sh", "-c", command)
		r.Storages = append(r.Storages, &kata.Storage{Driver: "mmioblk", Source: "/dev/vdb", Fstype: "ext4", MountPoint: at, Shared: true,
			DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"}, FsGroup: &kata.FSGroup{GroupId: 500}})
		r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: at, Destination: "/data", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
		return r
	}
	mapped := func(want bool) {
		var out bytes.Buffer
		code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"ls", "/dev/mapper"}, Seconds: 60}, &out)
		if err != nil || code != 0 || strings.Contains(out.String(), "casemate-emptydir-") != want {
			t.Errorf("exit code %d, %v: %s, want it mapped: %v", code, err, out.Bytes(), want)
		}
	}
	m.start(t, ctx, request(scratchCommand))
	m.wantOutput(t, ctx, "disk", "", scratchMark+"\n"+scratchMark+"\n")
	mapped(true)
	m.remove(t, ctx, "disk")
	mapped(false)
	r := request(fullCommand) // new, under another key
	m.start(t, ctx, r)
	m.wantOutput(t, ctx, "disk", "", "full\n")
	m.remove(t, ctx, "disk")
	mapped(false)
}

// destroyWithScratch ends the machine with a container in it: scratch is still undone in order.
func (m *podMachine) destroyWithScratch(t *testing.T, ctx context.Context) {
	// On a busy host the answer may go down with the machine.
	limited, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if _, err := m.DestroySandbox(limited, &kata.DestroySandboxRequest{}); err != nil && limited.Err() == nil {
		t.Error(err)
	}
	if err := m.vm.Wait(ctx); err != nil {
		t.Error(err)
	}
	if strings.Contains(m.vm.Console.String(), "casemate: failed") {
		t.Error("the pod was not ended in order")
	}
}

// TestVMScratchParked: a disk that is smaller than configured closes the door for good; memory does not take its place.
func TestVMScratchParked(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	disk, err := TempDisk(t.TempDir(), "scratch", 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	vm := bootWith(t, ctx, Config{Disks: []string{disk}}, withScratch(podFiles(t, busyboxImage(t), scratchPolicy(), "registry.example"), 64<<20)...)
	check(t, "scratch/parked", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "casemate: parked: scratch: the guest's scratch could not be opened"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(vm.Console.String(), "33554432 bytes, want at least 67108864") {
			t.Error("the console does not say why")
		}
	})
}
