// SPDX-License-Identifier: Apache-2.0

package pod_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/container"
)

// isolatedEnv marks the test program that runs in namespaces of its own.
const isolatedEnv = "CASEMATE_POD_TEST_ISOLATED"

func TestMain(m *testing.M) {
	container.Init()
	if os.Geteuid() != 0 || os.Getenv(isolatedEnv) != "" {
		if os.Getenv(isolatedEnv) != "" {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				fmt.Fprintln(os.Stderr, "making mounts private:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The pod changes mounts, interfaces and names of the guest: here, of nobody.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "running the tests in their own namespaces:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode() & 0xff)
}
