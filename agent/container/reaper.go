// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper collects the children of this process that nobody else waits for:
// orphans that the kernel hands to PID 1 or to a subreaper, and what a container
// creation that failed half-way leaves behind.
//
// It takes a child only when no one can own it. Owned are the first processes of
// containers and the commands started through Command; while a creation runs, its
// short-lived helper processes are not known by number yet, so nothing unknown is
// taken until it is over. A program that runs a Reaper therefore starts its
// children only through this package.
//
// The zero value is not usable. All methods may be called at the same time.
type Reaper struct {
	log  *slog.Logger
	kick chan struct{} // look again; capacity 1

	mu sync.Mutex
	// owned and spawning are guarded by mu, which is also held from the look at a
	// dead child to its collection: no creation can begin in between.
	owned    map[int]struct{}
	spawning int
}

// NewReaper returns a Reaper that collects once Run is called. log may be nil.
func NewReaper(log *slog.Logger) *Reaper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Reaper{log: log, kick: make(chan struct{}, 1), owned: map[int]struct{}{}}
}

// Run makes this process a subreaper, unless it is PID 1 and so already has the
// orphans, and collects until ctx ends. At most one Run per process.
func (r *Reaper) Run(ctx context.Context) error {
	// The os package probes for pidfd support with a child of its own, once and
	// lazily: have that done while nobody collects.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("becoming a subreaper: %w", err)
		}
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		r.collect()
		select {
		case <-ctx.Done():
			return nil
		case <-died:
		case <-r.kick:
		}
	}
}

// Command starts cmd and waits for it, keeping the Reaper off its process.
func (r *Reaper) Command(cmd *exec.Cmd) error {
	r.begin()
	if err := cmd.Start(); err != nil {
		r.end(0)
		return err
	}
	r.end(cmd.Process.Pid)
	defer r.disown(cmd.Process.Pid)
	return cmd.Wait()
}

// begin says that children of unknown number may come and go until end.
func (r *Reaper) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spawning++
}

// end closes begin. A pid other than 0 is owned from here on, until disown.
func (r *Reaper) end(pid int) {
	r.mu.Lock()
	r.spawning--
	if pid != 0 {
		r.owned[pid] = struct{}{}
	}
	r.mu.Unlock()
	r.look()
}

// disown is called once pid has been waited for by its owner. The number may have
// been given away again in the meantime, so the Reaper looks once more.
func (r *Reaper) disown(pid int) {
	r.mu.Lock()
	delete(r.owned, pid)
	r.mu.Unlock()
	r.look()
}

func (r *Reaper) look() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// collect takes dead children until the first one in the kernel's list is owned,
// or none is left. Stopping there loses nothing: its owner's disown looks again.
func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.spawning == 0 {
		pid := peekDead()
		if pid == 0 {
			return
		}
		if _, ok := r.owned[pid]; ok {
			return
		}
		var status unix.WaitStatus
		if got, err := unix.Wait4(pid, &status, unix.WNOHANG|unix.WALL, nil); err != nil || got != pid {
			return
		}
		r.log.Debug("collected an orphan", "pid", pid, "status", int(status))
	}
}

// peekDead returns the pid of a dead child without collecting it, or 0.
func peekDead() int {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || info.Signo == 0 {
			return 0
		}
		// siginfo_t of a SIGCHLD, include/uapi/asm-generic/siginfo.h: on 64-bit
		// machines the union with si_pid in front starts at byte 16.
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
	}
}
