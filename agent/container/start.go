// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// execFIFO is the name of the pipe in libcontainer's state directory at which a
// container's init waits: it opens it for writing, which blocks until there is a
// reader, writes one byte and executes the program.
const execFIFO = "exec.fifo"

// Start releases the container's first process into the user's program. A second
// Start is an error; ErrNotRunning means that the process died before it.
//
// libcontainer has a function for this, which leaves a thread blocked in open(2)
// for good when the process is dead: right for a program that ends after one
// container, not for one that stays.
func (c *Container) Start(ctx context.Context) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	if c.started {
		return fmt.Errorf("starting container %s: it is started already", c.id)
	}
	if c.done() {
		return fmt.Errorf("starting container %s: %w", c.id, ErrNotRunning)
	}
	path := filepath.Join(c.rt.state, c.id, execFIFO)
	fifo, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("starting container %s: %w", c.id, err)
	}
	defer fifo.Close()
	if err := c.awaitByte(ctx, fifo); err != nil {
		return fmt.Errorf("starting container %s: %w", c.id, err)
	}
	c.started = true
	// Its absence is how libcontainer tells a started container from a created one.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("starting container %s: %w", c.id, err)
	}
	return nil
}

// awaitByte reads the init's one byte. It gives up with the process and with ctx.
func (c *Container) awaitByte(ctx context.Context, fifo *os.File) error {
	over := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-over:
		case <-c.exited:
			_ = fifo.SetReadDeadline(time.Now())
		case <-ctx.Done():
			_ = fifo.SetReadDeadline(time.Now())
		}
	}()
	defer func() { close(over); <-watched }()

	raw, err := fifo.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	var n int
	var rerr error
	read := func(fd uintptr) bool {
		n, rerr = unix.Read(int(fd), b[:])
		// 0 is "no writer yet" and EAGAIN "a writer that has not written".
		return n == 1 || (n < 0 && rerr != unix.EAGAIN && rerr != unix.EINTR)
	}
	err = raw.Read(read)
	if err != nil {
		// The program may have started and ended before this goroutine came to read.
		err = errors.Join(err, raw.Control(func(fd uintptr) { read(fd) }))
	}
	switch {
	case n == 1:
		return nil
	case c.done():
		return ErrNotRunning
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errors.Join(err, rerr)
}
