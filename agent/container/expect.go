// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Expect says that a container is about to be created. It is a hint, which saves
// Create a wait in the kernel if there is something else to do in between, and
// returns at once.
func (rt *Runtime) Expect() { rt.mover.hurry() }

// mover has the kernel get ready for a process to change its cgroup. The first such
// move after a while waits until every CPU has noticed that one is under way (an RCU
// grace period, 5 to 15 ms: kernel/cgroup/cgroup.c, cgroup_threadgroup_rwsem), and so
// would each container's init. Moves that follow within about the same time do not
// wait.
type mover struct {
	own  string // this process' cgroup v2
	file string // its cgroup.procs; "" where there is none to be seen
	busy atomic.Bool
}

// newMover looks for this process' own cgroup in the v2 hierarchy among g's.
func newMover(g *parentGroup) (*mover, error) {
	m := &mover{}
	var err error
	if m.own, err = ownCgroup(); err != nil {
		return nil, err
	}
	for _, path := range g.paths {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			return nil, fmt.Errorf("looking for cgroup v2 at %s: %w", path, err)
		}
		if st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		// In a cgroup namespace the same path may be another group's.
		dir := filepath.Join(filepath.Dir(path), m.own)
		if pids, err := cgroups.GetPids(dir); err == nil && slices.Contains(pids, os.Getpid()) {
			m.file = filepath.Join(dir, "cgroup.procs")
		}
	}
	return m, nil
}

func ownCgroup() (string, error) {
	all, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("reading own cgroup: %w", err)
	}
	return all[""], nil
}

// hurry starts that wait by moving this process to where it is, beside what the caller
// does next.
func (m *mover) hurry() {
	if m.file == "" || !m.busy.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer m.busy.Store(false)
		if now, err := ownCgroup(); err == nil && now == m.own { // nobody has moved it for good
			_ = os.WriteFile(m.file, []byte("0"), 0)
		}
	}()
}
