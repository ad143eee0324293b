// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// consoleWords are what hosts put on a guest's command line to get a console in it: kata's own switches, which pod
// annotations reach, and those of init systems. 1026 is the port of kata's debug console.
const consoleWords = "agent.debug_console agent.debug_console_vport=1026 agent.log=debug agent.dev_mode agent.config_file=/tmp/x " +
	"single emergency rescue rd.break rd.shell systemd.unit=emergency.target systemd.debug_shell=1 SYSTEMD_SULOGIN_FORCE=1"

// tools is where the tests' programs are run from.
var tools = File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755}

// TestVMGHSA_rr59_xxvx_96qr (and GHSA-2gv2-cffp-j227): annotations of a pod reached the kernel's command line and
// switched a debug console on. In a guest that boots with those words there is none.
func TestVMGHSA_rr59_xxvx_96qr(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	vm := boot(t, ctx, Config{Append: consoleWords}, tools)
	if _, err := vm.Console.Expect(ctx, "casemate: ready: "); err != nil {
		t.Fatal(err)
	}
	check(t, "GHSA-rr59-xxvx-96qr", func(t *testing.T) { noConsole(t, ctx, vm) })
}

// TestVMGHSA_6w5f_5wgr_qjg5: a boot that a host made fail ended in an emergency shell on the serial line. This guest
// parks with nothing but its first process.
func TestVMGHSA_6w5f_5wgr_qjg5(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	_, list, err := imageModules(ctx, img.kernel)
	if err != nil {
		t.Fatal(err)
	}
	vm := boot(t, ctx, Config{Append: consoleWords}, tools, File{Path: moduleList, Text: list + "/lib/modules/missing.ko\n", Perm: 0o644})
	if _, err := vm.Console.Expect(ctx, "casemate: parked: boot-modules: "); err != nil {
		t.Fatal(err)
	}
	check(t, "GHSA-6w5f-5wgr-qjg5", func(t *testing.T) { noConsole(t, ctx, vm) })
}

// noConsole fails where something of user space runs beside the first process, where it has a terminal, or where the
// port of kata's debug console answers.
func noConsole(t *testing.T, ctx context.Context, vm *VM) {
	t.Helper()
	out := guestOutput(t, ctx, vm, "ps", "-o", "pid,ppid,tty,args")
	processes := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] == "PID" || strings.HasPrefix(fields[3], "[") {
			continue // kernel threads have no command line
		}
		if strings.Contains(line, "busybox ps") {
			continue // the question itself
		}
		processes++
		if fields[0] != "1" {
			t.Errorf("a process beside the first: %s", line)
		}
		// Device numbers, and ? or 0,0 for none.
		if fields[2] != "?" && fields[2] != "0,0" {
			t.Errorf("a process with a terminal: %s", line)
		}
	}
	if processes != 1 {
		t.Errorf("%d processes in\n%s", processes, out)
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if c, err := vm.DialOnce(limited, 1026); err == nil {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write([]byte("id\n"))
		answer := make([]byte, 64)
		if n, _ := c.Read(answer); n > 0 {
			t.Errorf("the port of the debug console says %q", answer[:n])
		}
		_ = c.Close()
	}
}

// guestOutput is what a tool of busybox prints inside the guest.
func guestOutput(t *testing.T, ctx context.Context, vm *VM, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if code, err := vm.Run(ctx, remote.Request{Run: "busybox", Args: args, Seconds: 60}, &out); code != 0 || err != nil {
		t.Fatalf("busybox %q: %d, %v\n%s", args, code, err, out.Bytes())
	}
	return out.String()
}
