// SPDX-License-Identifier: Apache-2.0

package pod_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/container"
)

// isolatedEnv marks the test program that runs in namespaces of its own.
const isolatedEnv = "CASEMATE_POD_TEST_ISOLATED"

func TestMain(m *testing.M) {
	container.Init()
	// A fuzzing worker is started by a process that is isolated already, and has namespaces of its own.
	want := "tests"
	if slices.Contains(os.Args, "-test.fuzzworker") {
		want = "worker"
	}
	if have := os.Getenv(isolatedEnv); have == want || os.Geteuid() != 0 {
		if have != "" {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				fmt.Fprintln(os.Stderr, "making mounts private:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"="+want)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if want == "worker" {
		for fd := uintptr(3); fd < 6; fd++ { // the coordinator's pipes and the input's memory
			cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(fd, "fuzz"))
		}
	}
	// The pod changes mounts, interfaces and names of the guest: here, of nobody.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "running the tests in their own namespaces:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode() & 0xff)
}
