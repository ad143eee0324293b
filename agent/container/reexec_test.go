// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// printReexecEnv is a helper: it prints the variables that survived the start.
func printReexecEnv() error {
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "_LIBCONTAINER_") || strings.HasPrefix(kv, "KEPT") {
			fmt.Println(kv)
		}
	}
	return nil
}

// A stranger's variables must reach neither nsexec, which would end the process
// when it cannot read its orders, nor Go.
func TestStrangersReexecVariablesAreRemoved(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
	}{
		{"console as init pipe", []string{"_LIBCONTAINER_INITPIPE=0", "_LIBCONTAINER_SYNCPIPE=0"}, nil},
		{"with the init argument", []string{"_LIBCONTAINER_INITPIPE=0", "_LIBCONTAINER_INITTYPE=standard"}, []string{"init"}},
		{"not a number", []string{"_LIBCONTAINER_INITPIPE=x"}, nil},
		{"huge", []string{"_LIBCONTAINER_INITPIPE=99999999999999999999"}, nil},
		{"closed descriptor", []string{"_LIBCONTAINER_INITPIPE=77"}, nil},
		{"empty, and a log pipe", []string{"_LIBCONTAINER_INITPIPE=", "_LIBCONTAINER_LOGPIPE=2", "_LIBCONTAINER_LOGLEVEL=5"}, nil},
		{"socket of another process", []string{"_LIBCONTAINER_INITPIPE=3"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The shell in between makes this process the grandparent, whose socket
			// pair is a stranger's too.
			args := append([]string{"-c", `"$0" "$@"; exit $?`, self}, tt.args...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/bin/sh", args...)
			cmd.WaitDelay = time.Second // nsexec's children would hold the output
			cmd.Env = append([]string{"KEPT=1", helperEnv + "=environ"}, tt.env...)
			cmd.Env = append(cmd.Env, "KEPT2=2")
			cmd.ExtraFiles = []*os.File{theirs}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("start failed: %v\n%s", err, out)
			}
			if got, want := string(out), "KEPT=1\nKEPT2=2\n"; got != want {
				t.Errorf("environment %q, want %q", got, want)
			}
		})
	}
}

// The test above proves something only if the same variables do act when this
// process' own parent gives them.
func TestParentsReexecVariablesAct(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	ours.Close() // nsexec finds the end of its orders and gives up
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "init")
	cmd.Env = []string{helperEnv + "=environ", "_LIBCONTAINER_INITPIPE=" + strconv.Itoa(3)}
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the start went on as if nothing was asked: %s", out)
	}
}
