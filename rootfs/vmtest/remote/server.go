// SPDX-License-Identifier: Apache-2.0

//go:build vmtest

package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Where a test guest keeps the programs, and where they may write and run things.
const (
	programs = "/tests"
	scratch  = "/run/vmtest"
)

// Serve listens on vsock and answers the test on the host until ctx ends. run starts a command and waits for it,
// power switches the machine "off" or has it "reboot".
func Serve(ctx context.Context, run func(*exec.Cmd) error, power func(string) error) error {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	l, err := vsock.Listen(Port, nil)
	if err != nil {
		return fmt.Errorf("listening for the test: %w", err)
	}
	g := guest{dir: programs, scratch: scratch, exec: run, power: power}
	return g.serve(ctx, l)
}

// guest runs programs for a test on the host.
type guest struct {
	dir     string
	scratch string
	exec    func(*exec.Cmd) error
	power   func(string) error
}

// serve answers until ctx ends, which closes the listener.
func (g *guest) serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting requests of the test: %w", err)
		}
		wg.Go(func() {
			g.answer(ctx, c)
			_ = c.Close() // the test sees a missing last frame
		})
	}
}

func (g *guest) answer(ctx context.Context, c net.Conn) {
	in := bufio.NewReader(c)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return
	}
	var r Request
	out := &frames{c: c}
	if err := json.Unmarshal(line, &r); err != nil {
		out.last(kindError, err.Error())
		return
	}
	if r.Power != "" {
		out.last(kindExit, "0")
		_ = c.Close()
		time.Sleep(50 * time.Millisecond) // the answer has to leave the machine first
		_ = g.power(r.Power)              // the test waits for the machine to end, and will say that it did not
		return
	}
	// A test that gives up closes its connection: the program goes with it.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.Seconds)*time.Second)
	defer cancel()
	go func() {
		_, _ = in.ReadByte()
		cancel()
	}()
	status, err := g.run(ctx, r, out)
	if err != nil {
		out.last(kindError, err.Error())
		return
	}
	out.last(kindExit, strconv.Itoa(status))
}

func (g *guest) run(ctx context.Context, r Request, out *frames) (int, error) {
	if filepath.Base(r.Run) != r.Run {
		return 0, fmt.Errorf("%q is no program's name", r.Run)
	}
	dir, err := os.MkdirTemp(g.scratch, r.Run+"-")
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(g.dir, r.Run), r.Args...)
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "HOME=" + dir, "PATH=" + g.dir}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = g.exec(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	return 0, errors.Join(err, context.Cause(ctx))
}

// frames turns what is written into output frames.
type frames struct {
	mu sync.Mutex
	c  net.Conn // guarded by mu
}

func (f *frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for rest := p; len(rest) > 0; {
		n := min(len(rest), frameMax)
		if err := writeFrame(f.c, kindOutput, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func (f *frames) last(kind byte, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = writeFrame(f.c, kind, []byte(text)) // the test may be gone
}
