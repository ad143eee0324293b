// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	consolePath = "/dev/console"
	lineMax     = 512 // bytes of one console line: a fixed phrase and a name or two
)

// Console prints single lines for whoever watches the machine's console, which is the host. Only stable codes and
// fixed phrases belong there. Safe for concurrent use.
type Console struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

// NewConsole prints to w.
func NewConsole(w io.Writer) *Console { return &Console{w: w} }

// Print writes "casemate: STATE: TEXT" as one line: control characters become '?', what is too long is cut. A line
// that cannot be written is lost, as there is nowhere else to say so.
func (c *Console) Print(state, text string) {
	line := make([]byte, 0, lineMax)
	for _, b := range []byte("casemate: " + state + ": " + text) {
		if len(line) == lineMax-1 {
			break
		}
		if b < ' ' || b == 0x7f {
			b = '?'
		}
		line = append(line, b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.w.Write(append(line, '\n'))
}

// Park prints the state in which the machine stays and waits until ctx ends. It is what the first process does in
// place of dying: the machine keeps its name for what is wrong, and offers nothing else.
func (c *Console) Park(ctx context.Context, code, phrase string) {
	c.Print("parked", code+": "+phrase)
	<-ctx.Done()
}

// attachConsole makes the console standard output and standard error, and standard input empty: nothing that is
// typed on the console is ever read. Without a console both outputs go nowhere. Plain descriptors are used because
// one of them may come out as a standard descriptor itself, and must then stay open.
func attachConsole() error {
	in, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the empty input: %w", err)
	}
	out, err := unix.Open(consolePath, unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		out = in
	}
	for fd, from := range []int{in, out, out} {
		if from == fd {
			continue
		}
		if err := unix.Dup2(from, fd); err != nil {
			return fmt.Errorf("replacing descriptor %d: %w", fd, err)
		}
	}
	spare := []int{in}
	if out != in {
		spare = append(spare, out)
	}
	err = nil
	for _, fd := range spare {
		if fd > 2 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}
