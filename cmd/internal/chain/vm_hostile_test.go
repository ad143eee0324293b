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

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/vmtest"
)

// parked: the guest says why on its console, is healthy, and refuses with its state's name.
func parked(ctx context.Context, t *testing.T, vm *vmtest.VM, reason, says string) {
	t.Helper()
	text := vm.Console.String()
	if !strings.Contains(text, says) || strings.Contains(text, "casemate: open: ") {
		t.Errorf("the console does not say %q, or the door is open", says)
	}
	g := agentOf(ctx, t, vm)
	wantRefused(t, "a parked guest", second(g.CreateSandbox(ctx, &kata.CreateSandboxRequest{SandboxId: "sandbox0"})), reason)
	conn, err := vm.Dial(ctx, 1024)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	defer c.Close()
	if r, err := kata.NewTTRPCHealthClient(c).Check(ctx, &kata.CheckRequest{}); err != nil || r.Status != kata.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
	code, _, _ := strings.Cut(reason, ":")
	fmt.Printf("vm: %s parked as %s ok (%.1fs)\n", t.Name(), code, vm.Age().Seconds())
}

// emptyDisk is a disk of no bytes.
func emptyDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// flippedInitData is a disk with the document of d in which one letter of its policy differs.
func flippedInitData(t *testing.T, d fixture.InitData) string {
	t.Helper()
	doc, err := os.ReadFile(d.File)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(doc, []byte("hello from"))
	if at < 0 {
		t.Fatal("the document has not the policy of these tests")
	}
	doc[at] ^= 1
	content, err := initdata.Device(doc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "flipped")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
