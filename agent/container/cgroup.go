// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules; without it any rule is an error
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"
)

// defaultCgroup is the one cgroup that holds all containers.
const defaultCgroup = "casemate"

// agentMemory is what all containers together leave to the agent and the kernel.
// On a small machine it is a quarter of the memory instead.
const agentMemory = 128 << 20

// validCgroup is a plain name: the cgroup lies directly below the root, where no
// other limit applies to it. It has up to maxCgroup characters.
var validCgroup = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

const maxCgroup = 64

// Limits bound all containers together. A zero field takes its default: all
// memory but a reserve, and three quarters of the kernel's tasks.
type Limits struct {
	Memory int64 // bytes
	Tasks  int64 // processes and threads
}

// parentGroup is the bounded cgroup above the containers' own.
type parentGroup struct {
	name  string
	paths []string // one directory a hierarchy
}

// newParentGroup makes the cgroup, or takes an existing one, and sets its limits.
func newParentGroup(name string, limits Limits) (*parentGroup, error) {
	if name == "" {
		name = defaultCgroup
	}
	if len(name) > maxCgroup || !validCgroup.MatchString(name) {
		return nil, fmt.Errorf("cgroup name %q, want %s of at most %d characters", name, validCgroup, maxCgroup)
	}
	limits, err := limits.withDefaults()
	if err != nil {
		return nil, err
	}
	resources := &cgroups.Resources{Memory: limits.Memory, PidsLimit: &limits.Tasks, SkipDevices: true}
	m, err := manager.New(&cgroups.Cgroup{Path: "/" + name, Resources: resources})
	if err != nil {
		return nil, fmt.Errorf("opening cgroup %s: %w", name, err)
	}
	g := &parentGroup{name: name}
	for _, path := range m.GetPaths() {
		g.paths = append(g.paths, path)
	}
	err = m.Apply(-1) // -1 makes it and moves nobody in
	for _, path := range g.paths {
		// The v1 devices hierarchy is skipped by Apply along with its rules.
		err = errors.Join(err, os.MkdirAll(path, 0o755))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making cgroup %s: %w", name, err), g.remove())
	}
	if err := m.Set(resources); err != nil {
		return nil, errors.Join(fmt.Errorf("limiting cgroup %s: %w", name, err), g.remove())
	}
	return g, nil
}

// path is the cgroup path of one container.
func (g *parentGroup) path(id string) string { return "/" + g.name + "/" + id }

// remove takes the cgroup away where it is empty. Elsewhere another process has
// containers in it, whose business it then is.
func (g *parentGroup) remove() error {
	var errs []error
	for _, path := range g.paths {
		err := unix.Rmdir(path)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("removing cgroup %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

func (l Limits) withDefaults() (Limits, error) {
	if l.Memory < 0 || l.Tasks < 0 {
		return l, fmt.Errorf("negative cgroup limit %+v", l)
	}
	if l.Memory == 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return l, fmt.Errorf("reading memory size: %w", err)
		}
		total := int64(info.Totalram) * int64(info.Unit)
		l.Memory = total - min(agentMemory, total/4)
	}
	if l.Tasks == 0 {
		for _, file := range []string{"pid_max", "threads-max"} {
			n, err := readInt(filepath.Join("/proc/sys/kernel", file))
			if err != nil {
				return l, err
			}
			if l.Tasks == 0 || n/4*3 < l.Tasks {
				l.Tasks = n / 4 * 3
			}
		}
	}
	return l, nil
}

func readInt(path string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading kernel limit: %w", err)
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading kernel limit %s: %w", path, err)
	}
	return n, nil
}

// openGroup gives this package its own handle on a container's cgroup. The manager
// writes to the configuration that it is given, so it gets a copy.
func openGroup(config *cgroups.Cgroup) (cgroups.Manager, error) {
	group, resources := *config, *config.Resources
	group.Resources = &resources
	m, err := manager.New(&group)
	if err != nil {
		return nil, fmt.Errorf("opening cgroup: %w", err)
	}
	return m, nil
}

// killGroup kills everything in a container's cgroup and waits until it is empty.
// Zombies are not counted: the kernel takes them off the list as they die.
func killGroup(ctx context.Context, m cgroups.Manager) error {
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		pids, err := groupPids(m)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := kill(m); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d killed processes: %w", len(pids), ctx.Err())
		case <-time.After(delay):
		}
	}
}

// kill sends SIGKILL to everything in the cgroup. Where the kernel has no
// cgroup.kill the cgroup is frozen meanwhile, so that no number is given to
// another process between the list and the signal.
func kill(m cgroups.Manager) error {
	if path := m.Path(""); path == "" || cgroups.WriteFile(path, "cgroup.kill", "1") != nil {
		_ = m.Freeze(cgroups.Frozen)
		pids, err := groupPids(m)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
	}
	// A process in a frozen v1 cgroup dies only once it is thawed. An error shows
	// as a process that stays.
	_ = m.Freeze(cgroups.Thawed)
	return nil
}

// groupPids lists the processes in a container's cgroup; none if it is gone.
func groupPids(m cgroups.Manager) ([]int, error) {
	pids, err := m.GetAllPids()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing processes of cgroup: %w", err)
	}
	return pids, nil
}
