// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const sealedCommand = "head -c 6 /small; cat /page > /dev/null 2>&1 && echo whole || echo refused"

// TestVMSealedStore: with image.verity a layer that was pulled is mounted through dm-verity, and what is changed below it
// afterwards, in the store's own file, is refused when it is read. Nothing of it is left behind the pod.
func TestVMSealedStore(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img := appendLayer(t, busyboxImage(t), map[string]string{"page": strings.Repeat(layerMark, 40_000)})
	img = appendLayer(t, img, map[string]string{"small": "small\n"})
	rego := tenantPolicy() + fmt.Sprintf("\nCreateContainerRequest if input.OCI.Process.Args == [\"/bin/sh\", \"-c\", %q]\n", sealedCommand)
	files := append(podFiles(t, img, rego, "registry.example"), File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755})
	for i, f := range files {
		if f.Path == "/etc/casemate/casemate.toml" {
			files[i].Text += "\n[image]\nverity = true\n"
		}
	}
	vm := bootWith(t, ctx, Config{}, files...)
	if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
		t.Fatal(err)
	}
	m := &podMachine{vm: vm, called: map[string]map[codes.Code]bool{}}
	m.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm))
	m.makeSandbox(t, ctx)
	m.makePause(t, ctx)
	check(t, "sealed/run", func(t *testing.T) {
		if _, err := m.CreateContainer(ctx, podContainer("one", "container", "/bin/sh", "-c", sealedCommand)); err != nil {
			t.Fatal(err)
		}
		if mounts := m.sealedMounts(t, ctx); mounts != 3 {
			t.Errorf("%d layers are mounted from sealed images, want 3", mounts)
		}
		// The host's work: a block in the middle of /page, which nobody has read yet.
		m.shell(t, ctx, `for f in /run/casemate/image/layers/*/image; do busybox grep -q 'a page of the lower layer' $f && busybox dd if=/dev/zero of=$f bs=512 seek=1000 count=1 conv=notrunc; done; true`)
		if _, err := m.StartContainer(ctx, &kata.StartContainerRequest{ContainerId: "one"}); err != nil {
			t.Fatal(err)
		}
		m.wantOutput(t, ctx, "one", "", "small\nrefused\n")
		m.remove(t, ctx, "one")
	})
	m.destroyWithScratch(t, ctx)
}

// shell runs a line in the guest, outside of the pod.
func (m *podMachine) shell(t *testing.T, ctx context.Context, line string) string {
	t.Helper()
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"sh", "-c", line}, Seconds: 60}, &out)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v: %s", line, code, err, out.Bytes())
	}
	return out.String()
}

// sealedMounts counts what is mounted from the sealed store, none of which has a node any more.
func (m *podMachine) sealedMounts(t *testing.T, ctx context.Context) int {
	t.Helper()
	if nodes := m.shell(t, ctx, "busybox ls /dev/mapper"); strings.Contains(nodes, "store-") {
		t.Errorf("nodes are left: %s", nodes)
	}
	return strings.Count(m.shell(t, ctx, "busybox cat /proc/1/mounts"), "/dev/mapper/store-")
}
