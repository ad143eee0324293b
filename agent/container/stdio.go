// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// drainTime is how long output is still awaited once the first process has ended
// while something else holds its standard output open. Runtimes ask for the exit
// code only after the end of both streams, and 500 ms is what they grant; the
// rest of it is left for the last bytes on their way through a busy machine.
const drainTime = 300 * time.Millisecond

// lastBytes bounds what is read after drainTime: the default capacity of a pipe,
// so that nothing written before the end of the process is lost, and nothing
// that is written for ever keeps the stream open.
const lastBytes = 64 << 10

// copySize is the buffer of one direction.
const copySize = 32 << 10

// Stdio are the caller's ends of the container's standard streams. Once Create
// has succeeded the container owns them: it closes an output when its stream has
// ended and the input when the process has. (Wrap a file that has to stay open.)
// When Create fails they are untouched.
//
// With process.terminal all three are one pseudo-terminal: Stdin is typed into
// it, its output goes to Stdout and Stderr is not used.
type Stdio struct {
	// Stdin is read ahead of what the process consumes. A Read that Close does not
	// end keeps one goroutine until it returns. nil is an empty input.
	Stdin io.ReadCloser

	// Stdout and Stderr get the output. One that does not take it makes the process
	// wait; an error ends the stream, as a closed pipe would. nil discards. One that is an
	// io.ReaderFrom reads the output itself, and returns the error that ended it.
	Stdout, Stderr io.WriteCloser
}

// streams is the container's side of a Stdio.
type streams struct {
	stdio  Stdio
	child  []*os.File // the process' ends; closed once it has them
	in     *os.File   // written to the process, or nil
	out    []output
	socket *os.File // over which libcontainer sends the terminal, or nil
	tty    *os.File // the terminal's master, or nil; in and out[0].from are it

	inOnce sync.Once      // closes the input
	copies sync.WaitGroup // of the output goroutines
	ended  chan struct{}  // closed after the last of them
}

type output struct {
	from *os.File
	to   io.WriteCloser
}

// openStreams makes the pipes or the terminal's socket and puts the process' ends
// into proc. Close or start must follow.
func openStreams(proc *libcontainer.Process, stdio Stdio, terminal bool) (_ *streams, err error) {
	s := &streams{stdio: stdio, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if terminal {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening console socket: %w", err)
		}
		s.socket = os.NewFile(uintptr(fds[0]), "console")
		proc.ConsoleSocket = os.NewFile(uintptr(fds[1]), "console")
		s.child = append(s.child, proc.ConsoleSocket)
		return s, nil
	}
	// What stays nil in proc becomes the null device.
	if stdio.Stdin != nil {
		r, w, err := pipe("stdin", false)
		if err != nil {
			return nil, err
		}
		s.child, s.in, proc.Stdin = append(s.child, r), w, r
	}
	if stdio.Stdout != nil {
		r, w, err := pipe("stdout", true)
		if err != nil {
			return nil, err
		}
		s.child, proc.Stdout = append(s.child, w), w
		s.out = append(s.out, output{r, stdio.Stdout})
	}
	if stdio.Stderr != nil {
		r, w, err := pipe("stderr", true)
		if err != nil {
			return nil, err
		}
		s.child, proc.Stderr = append(s.child, w), w
		s.out = append(s.out, output{r, stdio.Stderr})
	}
	return s, nil
}

// pipe makes a pipe of which only our end does not block: O_NONBLOCK belongs to
// the open file, so on the other end it would be seen by the container's program.
func pipe(name string, read bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("opening %s pipe: %w", name, err)
	}
	ours := fds[1]
	if read {
		ours = fds[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("opening %s pipe: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// created follows a successful start of the container's init, which has its ends
// by now and has sent its terminal.
func (s *streams) created() error {
	s.closeChild()
	if s.socket == nil {
		return nil
	}
	tty, err := receiveTerminal(s.socket)
	s.socket.Close()
	s.socket = nil
	if err != nil {
		return err
	}
	s.tty = tty
	s.out = []output{{tty, s.stdio.Stdout}}
	if s.stdio.Stdin != nil {
		s.in = tty
	}
	return nil
}

// receiveTerminal takes the pseudo-terminal's master from the socket.
func receiveTerminal(socket *os.File) (*os.File, error) {
	name, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), name, rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receiving terminal: %w", err)
	}
	// The buffer has room for one descriptor, so there is at most one to lose.
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("got %d control messages, want 1", len(messages))
	}
	if err != nil {
		return nil, fmt.Errorf("receiving terminal: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("got %d descriptors, want 1", len(fds))
	}
	if err != nil {
		return nil, fmt.Errorf("receiving terminal: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("receiving terminal: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// start takes ownership of the Stdio and begins to copy.
func (s *streams) start() {
	for _, o := range s.out {
		s.copies.Add(1)
		go func() {
			defer s.copies.Done()
			copyOut(o)
		}()
	}
	go func() {
		s.copies.Wait()
		close(s.ended)
	}()
	if s.in != nil {
		go s.copyIn()
	}
}

// copyIn ends with the input, or with the process: exited closes both sides.
func (s *streams) copyIn() {
	_, _ = io.CopyBuffer(onlyWriter{s.in}, onlyReader{s.stdio.Stdin}, make([]byte, copySize))
	s.closeInput()
}

// closeInput ends the input on both sides. A terminal stays open: the end of what
// is typed into it is not the end of its output.
func (s *streams) closeInput() {
	if s.in == nil {
		return
	}
	s.inOnce.Do(func() {
		if s.tty == nil {
			_ = s.in.Close()
		}
		_ = s.stdio.Stdin.Close()
	})
}

// The plain halves keep io.Copy from other ways of moving bytes than these.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// copyOut passes on one output until its end and closes both sides. A terminal
// reports the end as EIO.
func copyOut(o output) {
	defer o.from.Close()
	to := io.Writer(io.Discard)
	if o.to != nil {
		defer o.to.Close()
		to = o.to
	}
	var err error
	if direct, ok := to.(io.ReaderFrom); ok {
		_, err = direct.ReadFrom(o.from)
	} else {
		_, err = io.CopyBuffer(onlyWriter{to}, onlyReader{o.from}, make([]byte, copySize))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		copyRest(to, o.from)
	}
}

// copyRest passes on what is in the pipe at this moment and no more.
func copyRest(to io.Writer, from *os.File) {
	buf := make([]byte, copySize)
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for left := lastBytes; left > 0; {
		n := 0
		// Control, unlike Read, does not mind that the deadline has passed.
		_ = raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf[:min(left, len(buf))]) })
		if err != nil || n <= 0 {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		left -= n
	}
}

// exited says that the process is gone: its input is of no use, and its outputs
// end at the latest when drainTime is over.
func (s *streams) exited() {
	s.closeInput()
	for _, o := range s.out {
		_ = o.from.SetReadDeadline(time.Now().Add(drainTime))
	}
}

// wait blocks until all output has been passed on and closed.
func (s *streams) wait(ctx context.Context) error {
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of output: %w", ctx.Err())
	}
}

func (s *streams) closeChild() {
	for _, f := range s.child {
		_ = f.Close()
	}
	s.child = nil
}

// close undoes openStreams and created; start has not been called.
func (s *streams) close() {
	s.closeChild()
	for _, f := range []*os.File{s.socket, s.in, s.tty} {
		if f != nil {
			_ = f.Close()
		}
	}
	for _, o := range s.out {
		_ = o.from.Close()
	}
}

// resize sets the terminal's size, for a container's process.
func (s *streams) resize(id string, width, height uint16) error {
	if s.tty == nil {
		return fmt.Errorf("resizing a terminal of container %s: there is none", id)
	}
	raw, err := s.tty.SyscallConn()
	if err == nil {
		var ierr error
		err = raw.Control(func(fd uintptr) {
			ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
		})
		err = errors.Join(err, ierr)
	}
	if err != nil {
		return fmt.Errorf("resizing a terminal of container %s: %w", id, err)
	}
	return nil
}
