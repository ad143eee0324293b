// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestListenRefuses(t *testing.T) {
	for _, address := range []string{
		"", ":50000", "0.0.0.0:50000", "[::]:50000", "192.168.1.1:1", "localhost:50000", "127.0.0.1",
		"127.0.0.1:http", "[::1%lo]:1", "tcp:127.0.0.1:1", "unix:", "unix://", "unix:@abstract", "unix:\x00abstract",
	} {
		l, err := Listen(t.Context(), address)
		if err == nil {
			t.Errorf("Listen(%q) listens on %s, want an error", address, l.Addr())
			_ = l.Close()
		}
	}
}

func TestListenUnixModeAndRemoval(t *testing.T) {
	for _, prefix := range []string{"unix:", "unix://"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := Listen(t.Context(), prefix+path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode(), os.ModeSocket|0o600; got != want {
			t.Errorf("mode %v, want %v", got, want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Close: %v, want the socket gone", err)
		}
	}
}

func TestListenUnixReplacesOnlyDeadSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	live, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second listener: %v, want a refusal", err)
	}
	live.(*peerListener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatalf("dead socket in the way: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}

	for name, plant := range map[string]func(string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink":   func(p string) error { return os.Symlink("/nonexistent", p) },
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if _, err := ListenUnix(t.Context(), path); err == nil {
			t.Errorf("%s in the way: want an error", name)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s in the way was removed", name)
		}
	}
}

const dialVariable = "KEYPROVIDER_TEST_DIAL"

// TestDialHelper is no test: TestListenUnixChecksThePeer starts it as another
// user. It exits 0 when the server speaks first, 3 when it hangs up.
func TestDialHelper(t *testing.T) {
	path := os.Getenv(dialVariable)
	if path == "" {
		t.Skip("only a helper of TestListenUnixChecksThePeer")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		os.Exit(4)
	}
	if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
		os.Exit(3)
	}
	os.Exit(0)
}

// The socket's mode is opened to all on purpose: the credentials must hold
// without it.
func TestListenUnixChecksThePeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	helper := filepath.Join(dir, "helper")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(helper, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("hi"))
			_ = conn.Close()
		}
	}()
	defer func() { _ = l.Close(); <-done }()

	exitCode := func(uid uint32) int {
		cmd := exec.CommandContext(t.Context(), helper, "-test.run=^TestDialHelper$")
		cmd.Dir = dir
		cmd.Env = []string{dialVariable + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.WaitDelay = time.Second
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode()
	}
	if got := exitCode(65534); got != 4 {
		t.Errorf("another user, mode 0600: exit %d, want 4 (cannot connect)", got)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := exitCode(65534); got != 3 {
		t.Errorf("another user, mode 0666: exit %d, want 3 (hung up on)", got)
	}
	if got := exitCode(0); got != 0 {
		t.Errorf("own user: exit %d, want 0", got)
	}
}
