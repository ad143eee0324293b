// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ErrExists means that the id is taken, by a live container or by the remains of
// another process' one.
var ErrExists = errors.New("container exists")

var errClosed = errors.New("the runtime is closed")

// ErrNotRunning means that the first process of the container has ended.
var ErrNotRunning = errors.New("container is not running")

// Config says where a Runtime keeps its things.
type Config struct {
	// Root is the directory for the containers' state, best on a tmpfs. It is
	// created with mode 0700; one that others can write to is refused.
	Root string

	// Cgroup is the name of the one cgroup above all containers; "casemate" when
	// empty. Limits bound it.
	Cgroup string
	Limits Limits

	// Reaper is the process' reaper, already running. When nil, New runs one that
	// ends with Close. Either way all children of this process have to be started
	// through this package from then on: see Reaper.
	Reaper *Reaper

	// Log may be nil.
	Log *slog.Logger
}

// Bundle is an OCI bundle: a directory that holds the root file system, and the
// spec to run it by. Spec is not changed. The spec's root path is relative to Dir
// or lies beneath it. The spec's cgroupsPath, annotations and device rules are not
// used; hooks are refused. Spec.Linux.Resources are honoured.
type Bundle struct {
	Dir    string
	Spec   *specs.Spec
	Policy Policy
}

// Runtime makes containers. All methods may be called at the same time.
type Runtime struct {
	state   string // libcontainer's directories, one a container
	group   *parentGroup
	mover   *mover
	noPivot bool
	reaper  *Reaper
	log     *slog.Logger
	stop    func() // of an own reaper

	mu         sync.Mutex
	containers map[string]*Container // guarded by mu; nil while one is being created
	closed     bool                  // guarded by mu
}

// New prepares the state directory and the cgroup above all containers. Close
// undoes it. libcontainer's messages of this process go to cfg.Log from now on.
func New(cfg Config) (*Runtime, error) {
	if !filepath.IsAbs(cfg.Root) {
		return nil, fmt.Errorf("container state directory %q is not absolute", cfg.Root)
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	bridgeLog(log)
	if err := makeStateDir(cfg.Root); err != nil {
		return nil, err
	}
	mountinfo, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	defer mountinfo.Close()
	noPivot, err := onInitramfs(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	group, err := newParentGroup(cfg.Cgroup, cfg.Limits)
	if err != nil {
		return nil, err
	}
	mover, err := newMover(group)
	if err != nil {
		return nil, errors.Join(err, group.remove())
	}
	rt := &Runtime{
		state: cfg.Root, group: group, mover: mover, noPivot: noPivot, log: log,
		reaper: cfg.Reaper, stop: func() {},
		containers: map[string]*Container{},
	}
	if rt.reaper == nil {
		rt.runReaper()
	}
	return rt, nil
}

func makeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making container state directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("making container state directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("container state directory %s is writable by others, or not a directory (mode %#o, uid %d)", dir, st.Mode, st.Uid)
	}
	return nil
}

func (rt *Runtime) runReaper() {
	rt.reaper = NewReaper(rt.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rt.reaper.Run(ctx); err != nil {
			rt.log.Warn("orphans are not collected", "error", err)
		}
	}()
	rt.stop = func() { cancel(); <-done }
}

// Close deletes all containers, then the cgroup above them and, if it is empty,
// the state directory. Afterwards Create fails.
func (rt *Runtime) Close(ctx context.Context) error {
	rt.mu.Lock()
	rt.closed = true
	var all []*Container
	for _, c := range rt.containers {
		if c != nil {
			all = append(all, c)
		}
	}
	rt.mu.Unlock()
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Delete(ctx))
	}
	errs = append(errs, rt.group.remove())
	rt.stop()
	_ = os.Remove(rt.state)
	return errors.Join(errs...)
}

// reserve takes an id; release gives it back.
func (rt *Runtime) reserve(id string) error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return fmt.Errorf("creating container %s: %w", id, errClosed)
	}
	if _, ok := rt.containers[id]; ok {
		return fmt.Errorf("creating container %s: %w", id, ErrExists)
	}
	rt.containers[id] = nil
	return nil
}

// publish makes a created container known, unless Close came first.
func (rt *Runtime) publish(c *Container) bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return false
	}
	rt.containers[c.id] = c
	return true
}

func (rt *Runtime) release(id string) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	delete(rt.containers, id)
}

// onInitramfs tells from /proc/self/mountinfo whether the root directory is the
// kernel's initial root file system, at the bottom of the mount tree. That one cannot
// be pivoted away from, so a container's root is then moved over it instead. The same
// file system bound on top of itself, as PID 1 has it, can be left.
func onInitramfs(mountinfo io.Reader) (bool, error) {
	is := false
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		// proc_pid_mountinfo(5): fields 1 and 2 are the ids of the mount and of its parent,
		// the same at the bottom; field 5 is the mount point, the type follows " - ".
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && fields[4] == "/" {
			fstype, _, _ := strings.Cut(after, " ")
			is = fstype == "rootfs" && fields[0] == fields[1]
		}
	}
	return is, lines.Err()
}
