// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Container is one created container. All methods may be called at the same time.
type Container struct {
	rt      *Runtime
	id      string
	lc      *libcontainer.Container
	proc    *libcontainer.Process
	group   cgroups.Manager
	ownPIDs bool // it has a pid namespace of its own
	pid     int
	streams *streams

	exited  chan struct{} // closed when the following three are set
	exit    Exit
	ranOut  bool // the kernel has killed a process for want of the container's memory
	waitErr error

	starting sync.Mutex
	started  bool // guarded by starting

	updating sync.Mutex

	deleting sync.Mutex
	deleted  bool // guarded by deleting
}

// Exit says how the first process of a container ended.
type Exit struct {
	Code      int         // exit code, or 128 + Signal
	Signal    unix.Signal // the signal that ended it, or 0
	OOMKilled bool        // it was killed, and the kernel ran out of the container's memory
	At        time.Time
}

// ID returns the container's id.
func (c *Container) ID() string { return c.id }

// Pid returns the first process' number in this process' pid namespace. Once the
// container has exited the number may belong to another process.
func (c *Container) Pid() int { return c.pid }

// await collects the first process and tells all waiters. It is the only caller
// of proc.Wait after creation.
func (c *Container) await() {
	state, err := c.proc.Wait()
	at := time.Now()
	if state == nil {
		c.waitErr = fmt.Errorf("waiting for container %s: %w", c.id, err)
	} else {
		c.exit = exitOf(state.Sys().(syscall.WaitStatus), at)
	}
	kills, err := c.group.OOMKillCount()
	c.ranOut = err == nil && kills > 0
	c.exit.OOMKilled = c.ranOut && c.exit.Signal == unix.SIGKILL
	c.rt.reaper.disown(c.pid)
	c.streams.exited()
	close(c.exited)
}

func exitOf(status syscall.WaitStatus, at time.Time) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal(), At: at}
	}
	return Exit{Code: status.ExitStatus(), At: at}
}

// Wait blocks until the first process has ended, started or not. Any number of
// callers get the same answer, also after Delete. It does not wait for output:
// see WaitOutput.
func (c *Container) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-c.exited:
		return c.exit, c.waitErr
	default:
	}
	select {
	case <-c.exited:
		return c.exit, c.waitErr
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("waiting for container %s: %w", c.id, ctx.Err())
	}
}

// WaitOutput blocks until all output has been written to Stdio.Stdout and Stderr
// and both are closed. That is at most half a second after the exit, plus the time
// that the writers take.
func (c *Container) WaitOutput(ctx context.Context) error { return c.streams.wait(ctx) }

// Signal sends sig to the first process or, with all, to every process in the
// container. It returns ErrNotRunning when nobody is there to get it. SIGKILL also
// ends what is paused, and all processes of a container that shares its pid
// namespace. As in every pid namespace, a first process that has no handler for a
// signal other than SIGKILL does not get it.
func (c *Container) Signal(sig unix.Signal, all bool) error {
	if sig < 0 || sig > 64 {
		return fmt.Errorf("signalling container %s: no signal %d", c.id, int(sig))
	}
	if all || (sig == unix.SIGKILL && !c.ownPIDs) {
		return c.signalAll(sig)
	}
	err := c.proc.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("signalling container %s: %w", c.id, err)
	}
	if sig == unix.SIGKILL {
		return c.thaw()
	}
	return nil
}

// signalAll freezes the container, so that no process escapes by forking, signals
// each and leaves the freezer as it was; after SIGKILL it is open.
func (c *Container) signalAll(sig unix.Signal) error {
	if pids, err := groupPids(c.group); err != nil {
		return err
	} else if len(pids) == 0 {
		return ErrNotRunning
	}
	before, err := c.group.GetFreezerState()
	if err != nil {
		return fmt.Errorf("reading freezer of container %s: %w", c.id, err)
	}
	if before != cgroups.Frozen {
		err := c.group.Freeze(cgroups.Frozen)
		if err != nil && sig == unix.SIGKILL {
			return c.killUnfrozen()
		}
		if err != nil {
			return fmt.Errorf("freezing container %s: %w", c.id, err)
		}
	}
	pids, err := groupPids(c.group)
	for _, pid := range pids {
		if kerr := unix.Kill(pid, sig); kerr != nil && kerr != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("signalling process %d of container %s: %w", pid, c.id, kerr))
		}
	}
	if before == cgroups.Frozen && sig != unix.SIGKILL {
		return err
	}
	return errors.Join(err, c.thaw())
}

// killUnfrozen is for a freezer that gives up, as that of cgroup v1 does when the machine is busy. Who has been killed
// starts nobody any more, so what is left after some rounds is faster than they are.
func (c *Container) killUnfrozen() error {
	const rounds, pause = 100, 10 * time.Millisecond
	for range rounds {
		pids, err := groupPids(c.group)
		if err != nil || len(pids) == 0 {
			return errors.Join(err, c.thaw())
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("killing process %d of container %s: %w", pid, c.id, err)
			}
		}
		if err := c.thaw(); err != nil { // it may have stopped halfway
			return err
		}
		time.Sleep(pause)
	}
	return fmt.Errorf("killing container %s: it starts processes faster than they are killed", c.id)
}

func (c *Container) thaw() error {
	state, err := c.group.GetFreezerState()
	if err == nil && state == cgroups.Frozen {
		err = c.group.Freeze(cgroups.Thawed)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("thawing container %s: %w", c.id, err)
	}
	return nil
}

// Pause stops all processes of the container until Resume.
func (c *Container) Pause() error { return c.freeze("pausing", cgroups.Frozen) }

// Resume undoes Pause.
func (c *Container) Resume() error { return c.freeze("resuming", cgroups.Thawed) }

func (c *Container) freeze(what string, to cgroups.FreezerState) error {
	if c.done() {
		return ErrNotRunning
	}
	if err := c.group.Freeze(to); err != nil {
		return fmt.Errorf("%s container %s: %w", what, c.id, err)
	}
	return nil
}

// Pids returns the processes of the container in this process' pid namespace.
func (c *Container) Pids() ([]int, error) { return groupPids(c.group) }

// Stats returns the container's cgroup counters.
func (c *Container) Stats() (*cgroups.Stats, error) {
	stats, err := c.group.GetStats()
	if err != nil {
		return nil, fmt.Errorf("reading counters of container %s: %w", c.id, err)
	}
	return stats, nil
}

// Resize sets the terminal's size in characters. It fails without a terminal.
func (c *Container) Resize(width, height uint16) error { return c.streams.resize(c.id, width, height) }

func (c *Container) done() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// Delete kills what still runs, waits for the exit and the end of output, and
// removes cgroup, state and the claim to the id. When ctx ends first, or something
// cannot be removed, it can be called again. After the first success it does
// nothing.
func (c *Container) Delete(ctx context.Context) error {
	c.deleting.Lock()
	defer c.deleting.Unlock()
	if c.deleted {
		return nil
	}
	if err := killGroup(ctx, c.group); err != nil {
		return fmt.Errorf("deleting container %s: %w", c.id, err)
	}
	if _, err := c.Wait(ctx); err != nil {
		return fmt.Errorf("deleting container %s: %w", c.id, err)
	}
	if err := c.lc.Destroy(); err != nil {
		return fmt.Errorf("deleting container %s: %w", c.id, err)
	}
	if err := c.streams.wait(ctx); err != nil {
		return fmt.Errorf("deleting container %s: %w", c.id, err)
	}
	c.deleted = true
	c.rt.release(c.id)
	return nil
}
