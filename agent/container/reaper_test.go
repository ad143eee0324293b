// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Reaper owns all children of its process, so each of these tests runs in a
// process of its own.
func TestReaperTakesOrphansAndNothingElse(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{helperEnv + "=reaper"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func helper(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{helperEnv + "=" + name}
	return cmd
}

func sleepShort() error {
	time.Sleep(50 * time.Millisecond)
	return nil
}

// leaveOrphan starts a child and exits without waiting, with a code of its own.
func leaveOrphan() error {
	if err := helper("sleep").Start(); err != nil {
		return err
	}
	os.Exit(7)
	return nil
}

// reapOrphans runs commands whose exit codes must arrive while the grandchildren
// that they leave are collected.
func reapOrphans() error {
	r := NewReaper(nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()

	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var exit *exec.ExitError
			if err := r.Command(helper("parent")); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				errs <- fmt.Errorf("command ended with %v, want exit code 7", err)
			}
		}()
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	if err := r.Command(exec.Command("/does/not/exist")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("missing command gives %v", err)
	}
	if err := waitChildless(10 * time.Second); err != nil {
		return err
	}

	// While a creation runs its children are not the reaper's.
	r.begin()
	own := helper("sleep")
	if err := own.Start(); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	if err := own.Wait(); err != nil {
		return fmt.Errorf("child of a creation was stolen: %w", err)
	}
	left := helper("sleep")
	if err := left.Start(); err != nil {
		return err
	}
	r.end(0)
	if err := waitChildless(10 * time.Second); err != nil {
		return err
	}
	cancel()
	return <-done
}

// waitChildless waits until this process has no child, living or dead.
func waitChildless(limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		if err == unix.ECHILD {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("children are left after %v (waitid: %v)", limit, err)
		}
	}
}
