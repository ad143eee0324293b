// SPDX-License-Identifier: Apache-2.0

//go:build vm

package agent

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
)

// TestVMOnlyTheHostIsHeard runs inside the guest of rootfs/vmtest and dials the agent as a workload could: through
// vsock's loopback. The connection must end unanswered.
func TestVMOnlyTheHostIsHeard(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := vsock.DialContext(ctx, vsock.Local, 1024, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(frame(t, 1, frameRequest, healthService, "Check")) // it may be closed already
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
}

// TestVMNoTCP: in a guest the sandbox API listens nowhere else.
func TestVMNoTCP(t *testing.T) {
	for _, file := range []string{"/proc/1/net/tcp", "/proc/1/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "0A" {
				t.Errorf("%s: listening on %s", file, fields[1])
			}
		}
	}
	if c, err := net.DialTimeout("tcp", "127.0.0.1:1024", time.Second); err == nil {
		_ = c.Close()
		t.Error("port 1024 answers on TCP")
	}
}
