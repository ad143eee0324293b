// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// createTime bounds a creation whose context has no end of its own. An image can
// make one hang, for instance with a named pipe as its /etc/passwd.
const createTime = time.Minute

// undoTime bounds the clean-up after a creation that failed. The processes are
// killed by then; only one in an uninterruptible wait takes longer.
const undoTime = 10 * time.Second

// Create makes the container's namespaces, cgroup, mounts and first process,
// which stops just before the user's program. Start releases it.
//
// If anything fails, or ctx or a minute ends first, everything is undone: no
// process, mount, cgroup or state directory is left. Errors wrap ErrRefused for an
// id or a spec that is not allowed and ErrExists for an id in use.
func (rt *Runtime) Create(ctx context.Context, id string, bundle Bundle, stdio Stdio) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	rt.mover.hurry()
	spec, err := harden(bundle.Spec, bundle.Dir, rt.group.path(id), bundle.Policy)
	if err != nil {
		return nil, fmt.Errorf("checking spec of container %s: %w", id, err)
	}
	if err := rt.reserve(id); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	c, err := rt.create(limited, id, spec, stdio)
	if err != nil {
		rt.release(id)
		return nil, fmt.Errorf("creating container %s: %w", id, err)
	}
	if !rt.publish(c) {
		_ = c.Delete(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("creating container %s: %w", id, errClosed)
	}
	return c, nil
}

func (rt *Runtime) create(ctx context.Context, id string, spec *specs.Spec, stdio Stdio) (_ *Container, err error) {
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName: id, Spec: spec, NoPivotRoot: rt.noPivot,
	})
	if err != nil {
		return nil, err
	}
	config.Labels = nil // only hooks read them
	group, err := openGroup(config.Cgroups)
	if err != nil {
		return nil, err
	}
	proc, err := initProcess(spec.Process)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lc, err := libcontainer.Create(rt.state, id, config)
	if errors.Is(err, libcontainer.ErrExist) {
		return nil, ErrExists
	}
	if err != nil {
		return nil, err
	}
	c := &Container{
		rt: rt, id: id, lc: lc, proc: proc, group: group,
		ownPIDs: config.Namespaces.IsPrivate(configs.NEWPID),
		exited:  make(chan struct{}),
	}
	if c.streams, err = openStreams(proc, stdio, spec.Process.Terminal); err != nil {
		return nil, errors.Join(err, c.undo())
	}
	if err := c.spawn(ctx); err != nil {
		c.streams.close()
		return nil, errors.Join(err, c.undo())
	}
	c.streams.start()
	go c.await()
	return c, nil
}

// spawn starts the container's init. libcontainer's Start cannot be cancelled, but
// all it waits for are processes in the container's cgroup: when ctx ends they are
// killed, for as long as new ones turn up.
func (c *Container) spawn(ctx context.Context) error {
	c.rt.reaper.begin()
	started := make(chan error, 1)
	go func() { started <- c.lc.Start(c.proc) }()
	var err error
	select {
	case err = <-started:
	case <-ctx.Done():
		err = c.abort(started)
	}
	if err == nil {
		if err = c.adopt(ctx); err != nil {
			_ = c.proc.Signal(unix.SIGKILL)
			_, _ = c.proc.Wait()
		}
	}
	if err != nil {
		c.rt.reaper.end(0)
		if cancelled := ctx.Err(); cancelled != nil && !errors.Is(err, cancelled) {
			err = fmt.Errorf("%w: %w", cancelled, err)
		}
		return err
	}
	c.rt.reaper.end(c.pid)
	return nil
}

// adopt takes over the init that has just been started.
func (c *Container) adopt(ctx context.Context) (err error) {
	if c.pid, err = c.proc.Pid(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.streams.created()
}

// abort kills until Start has given up.
func (c *Container) abort(started <-chan error) error {
	for {
		if pids, err := groupPids(c.group); err == nil && len(pids) > 0 {
			_ = kill(c.group)
		}
		select {
		case err := <-started:
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// undo removes what a failed creation has left. It does not use the caller's
// context, which may be why the creation failed.
func (c *Container) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	if err := killGroup(ctx, c.group); err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	if err := c.lc.Destroy(); err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	return nil
}
