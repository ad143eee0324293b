// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashDir names the state directory to the process that is going to be killed.
const crashDir = "CASEMATE_TEST_CRASH_DIR"

// TestMain is also the process that writes until it is killed.
func TestMain(m *testing.M) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Open(dir, testKey())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		// Both values of a round are of one length and are never read mixed.
		value := []byte(strconv.Itoa(1_000_000 + n))
		_, err := s.PutSecret("w", "a/b/c", value)
		_, err2 := s.PutSecret("w", fmt.Sprintf("a/b/%d", n%64), value)
		if err := errors.Join(err, err2); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(string(value))
	}
}

// A keybroker that is killed while it writes leaves whole values: each the old or the
// new one, and nothing that was acknowledged is lost.
func TestKilledWhileWriting(t *testing.T) {
	dir := newDir(t)
	last := 0
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		var acknowledged strings.Builder
		cmd.Stdout = &acknowledged
		must(t, cmd.Start())
		time.Sleep(time.Duration(150+round*70) * time.Millisecond)
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil {
			t.Fatal("the writer ended by itself")
		}
		s, err := Open(dir, testKey())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		list, err := s.Secrets("w")
		must(t, err)
		for _, secret := range list {
			value, err := s.Secret("w", secret.Path)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 1_000_000 {
				t.Fatalf("round %d: %s is %q", round, secret.Path, value)
			}
			last = max(last, n)
		}
		if lines := strings.Split(acknowledged.String(), "\n"); len(lines) > 1 {
			n, err := strconv.Atoi(lines[len(lines)-2])
			must(t, err)
			if value, err := s.Secret("w", "a/b/c"); err != nil || string(value) < strconv.Itoa(n) {
				t.Fatalf("round %d: %d was acknowledged, the state has %q, %v", round, n, value, err)
			}
		}
		must(t, s.Close())
	}
	if last <= 1_000_000 {
		t.Skip("the machine is too slow: nothing was written before the writer was killed")
	}
}
