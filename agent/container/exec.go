// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Process is a further process in a running container. All methods may be called
// at the same time.
type Process struct {
	c       *Container
	proc    *libcontainer.Process
	pid     int
	streams *streams

	exited  chan struct{} // closed when exit and waitErr are set
	exit    Exit
	waitErr error
}

// Exec starts a process beside the container's first one, in its namespaces, cgroup
// and root, under its seccomp profile. Without capabilities of its own it has the
// container's; with some, none that the container's bounding set lacks. The stdio
// rules are Create's. ErrNotRunning means that the first process has ended.
func (c *Container) Exec(ctx context.Context, spec *specs.Process, stdio Stdio) (*Process, error) {
	s := specs.Spec{Process: spec}
	if spec == nil {
		return nil, refuse("no process")
	}
	bare := spec.Capabilities == nil
	if err := checkProcess(&s, Policy{}); err != nil {
		return nil, err
	}
	proc, err := c.execProcess(s.Process, bare)
	if err != nil {
		return nil, err
	}
	p := &Process{c: c, proc: proc, exited: make(chan struct{})}
	if p.streams, err = openStreams(proc, stdio, s.Process.Terminal); err != nil {
		return nil, fmt.Errorf("executing in container %s: %w", c.id, err)
	}
	if err := p.spawn(ctx); err != nil {
		return nil, fmt.Errorf("executing in container %s: %w", c.id, err)
	}
	p.streams.start()
	go p.await()
	return p, nil
}

// execProcess is spec in libcontainer's form.
func (c *Container) execProcess(spec *specs.Process, bare bool) (*libcontainer.Process, error) {
	proc, err := initProcess(spec)
	if err != nil {
		return nil, err
	}
	proc.Init = false
	config := c.lc.Config()
	if config.NoNewPrivileges {
		proc.NoNewPrivileges = nil // the container's own
	}
	if bare {
		return proc, nil
	}
	if err := within(spec.Capabilities, config.Capabilities); err != nil {
		return nil, err
	}
	proc.Capabilities = &configs.Capabilities{
		Bounding: spec.Capabilities.Bounding, Effective: spec.Capabilities.Effective, Permitted: spec.Capabilities.Permitted,
		Inheritable: spec.Capabilities.Inheritable, Ambient: spec.Capabilities.Ambient,
	}
	return proc, nil
}

// within refuses capabilities that the container does not have.
func within(asked *specs.LinuxCapabilities, has *configs.Capabilities) error {
	var bound []string
	if has != nil {
		bound = has.Bounding
	}
	for _, set := range [][]string{asked.Bounding, asked.Effective, asked.Permitted, asked.Inheritable, asked.Ambient} {
		for _, name := range set {
			if !slices.Contains(bound, name) {
				return refuse("capability %q, which the container does not have", name)
			}
		}
	}
	return nil
}

// spawn starts the process or closes its streams. When ctx ends first the start is left to itself: what comes of it
// is killed, and only this process. Until then the streams stay open: a number that is about to be handed to the child
// must not come to mean another file of this process.
func (p *Process) spawn(ctx context.Context) error {
	if p.c.done() {
		p.streams.close()
		return ErrNotRunning
	}
	p.c.rt.reaper.begin()
	started := make(chan error, 1)
	go func() { started <- p.c.lc.Start(p.proc) }()
	select {
	case err := <-started:
		return p.adopt(ctx, err)
	case <-ctx.Done():
		go func() {
			if <-started == nil {
				_ = p.proc.Signal(unix.SIGKILL)
				_, _ = p.proc.Wait()
			}
			p.streams.close()
			p.c.rt.reaper.end(0)
		}()
		return ctx.Err()
	}
}

func (p *Process) adopt(ctx context.Context, err error) error {
	if err == nil {
		if p.pid, err = p.proc.Pid(); err == nil {
			err = errors.Join(ctx.Err(), p.streams.created())
		}
		if err != nil {
			_ = p.proc.Signal(unix.SIGKILL)
			_, _ = p.proc.Wait()
		}
	}
	if err != nil {
		p.streams.close()
		p.c.rt.reaper.end(0)
		if p.c.done() {
			return ErrNotRunning
		}
		return err
	}
	p.c.rt.reaper.end(p.pid)
	return nil
}

func (p *Process) await() {
	state, err := p.proc.Wait()
	at := time.Now()
	if state == nil {
		p.waitErr = fmt.Errorf("waiting for a process of container %s: %w", p.c.id, err)
	} else {
		p.exit = exitOf(state.Sys().(syscall.WaitStatus), at)
	}
	p.c.rt.reaper.disown(p.pid)
	p.streams.exited()
	close(p.exited)
}

// Pid returns the process' number in this process' pid namespace. Once it has
// exited the number may belong to another process.
func (p *Process) Pid() int { return p.pid }

// Wait blocks until the process has ended. Any number of callers get the same answer.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.exited:
		return p.exit, p.waitErr
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("waiting for a process of container %s: %w", p.c.id, ctx.Err())
	}
}

// Signal sends sig to the process alone, all or not. It returns ErrNotRunning when
// the process has ended.
func (p *Process) Signal(sig unix.Signal, _ bool) error {
	if sig < 0 || sig > 64 {
		return fmt.Errorf("signalling a process of container %s: no signal %d", p.c.id, int(sig))
	}
	err := p.proc.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("signalling a process of container %s: %w", p.c.id, err)
	}
	return nil
}

// Resize sets the terminal's size in characters. It fails without a terminal.
func (p *Process) Resize(width, height uint16) error { return p.streams.resize(p.c.id, width, height) }
