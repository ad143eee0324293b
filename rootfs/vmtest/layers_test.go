// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const (
	// layerMark stands in a file of the lower layer and nowhere else.
	layerMark    = "a page of the lower layer "
	layerCommand = "cat /greeting; ls /gone 2>&1; head -c 26 /page; echo; echo x > /new && cat /new; grep -c ' /dev/mapper' /proc/mounts"
	layerOutput  = "from the upper layer\nls: /gone: No such file or directory\n" + layerMark + "\nx\n0\n"
	pageCommand  = "cat /greeting; cat /page > /dev/null 2>&1 || echo refused"
)

// appendLayer adds a layer of files to an image. A name of which nothing is left but its whiteout ends in "-".
func appendLayer(t *testing.T, img v1.Image, files map[string]string) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(img, static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// makeLayers has the owner's program make the devices of an image. It returns the annotated image, without the blobs of
// its layers, and the devices, bottom first.
func makeLayers(t *testing.T, ctx context.Context, img v1.Image) (layout string, devices []string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "casemate-build")
	if err := Build(ctx, Program{Package: "./cmd/casemate-build"}, program); err != nil {
		t.Fatal(err)
	}
	layout = filepath.Join(dir, "annotated")
	run(t, program, "layers", "oci:"+writeLayout(t, img), "oci:"+layout, filepath.Join(dir, "devices"))
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(layout, "blobs/sha256", digest.Hex)); err != nil {
			t.Fatal(err)
		}
		devices = append(devices, filepath.Join(dir, "devices", "sha256-"+digest.Hex+".erofs")) // plain: also the DiffID
	}
	return layout, devices
}

// changed writes what f makes of a file.
func changed(t *testing.T, file string, f func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(out, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// partitioned is one disk with a partition for each layer, as kata 4.1 makes it of several.
func partitioned(t *testing.T, devices []string) string {
	t.Helper()
	const align = 1 << 20
	var content []byte
	table := "label: gpt\n"
	for _, device := range devices {
		b, err := os.ReadFile(device)
		if err != nil {
			t.Fatal(err)
		}
		table += fmt.Sprintf("start=%d, size=%d\n", (align+len(content))/512, len(b)/512)
		content = append(content, b...)
		content = append(content, make([]byte, -len(content)&(align-1))...)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, append(append(make([]byte, align), content...), make([]byte, align)...), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sfdisk", "--quiet", disk)
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	return disk
}

// layeredContainer is a request as kata's runtime sends it for an erofs snapshot: the writable disk first, and what the
// host says of root hashes.
func layeredContainer(id, command string, nodes ...string) *kata.CreateContainerRequest {
	r := podContainer(id, "container", "/bin/sh", "-c", command)
	point := podDir + "/" + id + "/rootfs"
	r.Storages = []*kata.Storage{{
		Driver: "mmioblk", Source: "/dev/vdz", Fstype: "ext4", MountPoint: point,
		Options: []string{"rw", "X-kata.overlay-upper", "X-kata.multi-layer=true", "X-kata.mkdir.path={{ mount 0 }}/upper"},
	}}
	for _, node := range nodes {
		r.Storages = append(r.Storages, &kata.Storage{
			Driver: "mmioblk", Source: node, Fstype: "erofs", MountPoint: point,
			Options: []string{"ro", "X-kata.overlay-lower", "X-kata.multi-layer=true", "X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=" + strings.Repeat("0", 64)},
		})
	}
	r.OCI.Annotations["io.kubernetes.cri.image-name"] = "oci:" + imageDir
	return r
}

// TestVMHostLayers: a container runs on layers that the host has plugged in, none of which was downloaded; whatever is
// not what the image's manifest binds is refused by name, and a changed block when it is read.
func TestVMHostLayers(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	page := strings.Repeat(layerMark, 1000)
	lower := appendLayer(t, busyboxImage(t), map[string]string{"greeting": "from the lower layer\n", "gone": "x", "page": page})
	img := appendLayer(t, lower, map[string]string{"greeting": "from the upper layer\n", ".wh.gone": ""})
	layout, devices := makeLayers(t, ctx, img)
	_, foreign := makeLayers(t, ctx, appendLayer(t, busyboxImage(t), map[string]string{"greeting": "from another image\n", "page": page}))
	flipped := changed(t, devices[1], func(b []byte) []byte {
		b[bytes.LastIndex(b, []byte(layerMark))] ^= 1
		return b
	})
	short := changed(t, devices[2], func(b []byte) []byte { return b[:len(b)-4096] })
	spoilt := changed(t, devices[2], func(b []byte) []byte {
		b[bytes.Index(b, []byte("verity\x00\x00"))+72] ^= 1 // a superblock of one block more
		return b
	})

	rego := tenantPolicy()
	for _, command := range []string{layerCommand, pageCommand} {
		rego += fmt.Sprintf("\nCreateContainerRequest if input.OCI.Process.Args == [\"/bin/sh\", \"-c\", %q]\n", command)
	}
	files := podFiles(t, busyboxImage(t), rego, "registry.example")
	files = append(without(files, imageDir), tree(t, layout, imageDir)...)
	guest, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755}, File{Path: "/tests/casemate", HostPath: guest.init, Perm: 0o755})
	disks := append(devices, foreign[1], flipped, short, spoilt, partitioned(t, devices)) // vda to vdh
	vm := bootWith(t, ctx, Config{Shared: disks, MemoryMiB: 384}, files...)
	if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
		t.Fatal(err)
	}
	m := &podMachine{vm: vm, called: map[string]map[codes.Code]bool{}}
	m.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm))
	m.makeSandbox(t, ctx)
	m.makePause(t, ctx)
	check(t, "layers/run", func(t *testing.T) {
		for _, id := range []string{"one", "two"} { // both have them
			m.start(t, ctx, layeredContainer(id, layerCommand, "/dev/vdc", "/dev/vda", "/dev/vdb"))
			m.wantOutput(t, ctx, id, "", layerOutput)
		}
		m.wantLayers(t, ctx, 3)
		m.remove(t, ctx, "one")
		m.wantLayers(t, ctx, 3)
		m.remove(t, ctx, "two")
		m.wantLayers(t, ctx, 0)
	})
	check(t, "layers/partitions", func(t *testing.T) {
		r := layeredContainer("parts", layerCommand, "/dev/vdh", "/dev/vdh", "/dev/vdh")
		for i, st := range r.Storages[1:] {
			st.Options = append(st.Options, "X-kata.gpt-partitioned=true", fmt.Sprintf("X-kata.partition-number=%d", i+1))
		}
		m.start(t, ctx, r)
		m.wantOutput(t, ctx, "parts", "", layerOutput)
		m.remove(t, ctx, "parts")
		m.wantLayers(t, ctx, 0)
	})
	check(t, "layers/flipped", func(t *testing.T) {
		m.start(t, ctx, layeredContainer("flipped", pageCommand, "/dev/vda", "/dev/vde", "/dev/vdc"))
		m.wantOutput(t, ctx, "flipped", "", "from the upper layer\nrefused\n")
		m.remove(t, ctx, "flipped")
	})
	check(t, "layers/refused", func(t *testing.T) {
		for _, tt := range []struct {
			name, want string
			request    *kata.CreateContainerRequest
		}{
			{"a foreign layer", "bound to no layer of the image", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vdb", "/dev/vdd")},
			{"a short device", "verity device is too small", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vdb", "/dev/vdf")},
			{"another superblock", "verity superblock disagrees with the pin", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vdb", "/dev/vdg")},
			{"a layer too few", "number of devices", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vdb")},
			{"a layer too many", "number of devices", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd")},
			{"one device twice", "named twice", layeredContainer("refused", layerCommand, "/dev/vda", "/dev/vda", "/dev/vdc")},
			{"one layer twice", "named twice", layeredContainer("refused", layerCommand, "/dev/vdb", "/dev/vde", "/dev/vdc")},
		} {
			_, err := m.CreateContainer(ctx, tt.request)
			if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
		}
		m.wantLayers(t, ctx, 0)
	})
	check(t, "layers/verb", func(t *testing.T) { m.runsOnLayers(t, ctx) })
	m.destroyWithScratch(t, ctx)
}

// runsOnLayers uses the verb, with a file in place of one of the disks, and leaves nothing mapped.
func (m *podMachine) runsOnLayers(t *testing.T, ctx context.Context) {
	inVM := func(args ...string) (int, string) {
		t.Helper()
		var out bytes.Buffer
		code, err := m.vm.Run(ctx, remote.Request{Run: args[0], Args: args[1:], Seconds: 120}, &out)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return code, out.String()
	}
	if code, out := inVM("busybox", "cp", "/dev/vdc", "/run/upper"); code != 0 {
		t.Fatal(out)
	}
	run := []string{"casemate", "run", "--layer", "/dev/vda", "--layer", "/dev/vdb", "--layer", "/run/upper", "oci:" + imageDir, "--", "/bin/cat", "/greeting"}
	if code, out := inVM(run...); code != 0 || !strings.Contains(out, "from the upper layer\n") || !strings.Contains(out, "bound: 3 layers on devices") {
		t.Errorf("exit code %d: %s", code, out)
	}
	run[7] = "/dev/vdd"
	if code, out := inVM(run...); code != 1 || !strings.Contains(out, "bound to no layer of the image") {
		t.Errorf("a foreign layer: exit code %d: %s", code, out)
	}
	m.wantLayers(t, ctx, 0)
	if code, out := inVM("busybox", "losetup", "-a"); code != 0 || strings.Contains(out, "upper") {
		t.Errorf("loop devices: exit code %d: %s", code, out)
	}
}

// without leaves out the files below dir.
func without(files []File, dir string) []File {
	var out []File
	for _, f := range files {
		if !strings.HasPrefix(f.Path, dir+"/") {
			out = append(out, f)
		}
	}
	return out
}

// wantLayers counts the mapped layers in the guest.
func (m *podMachine) wantLayers(t *testing.T, ctx context.Context, want int) {
	t.Helper()
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"ls", "/dev/mapper"}, Seconds: 60}, &out)
	if got := strings.Count(out.String(), "layer-"); err != nil || code != 0 || got != want {
		t.Errorf("exit code %d, %v: %s: want %d layers mapped", code, err, out.Bytes(), want)
	}
}
