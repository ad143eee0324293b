// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoMount is wrapped by the error of a [Container.Share] whose source is not mounted (yet).
var ErrNoMount = errors.New("nothing is mounted there")

// Share mounts what is mounted at source in this container at target in another one as well, with what is mounted below
// it. Both are clean absolute paths in their containers, outside of /proc, /sys and /dev; neither leads through a
// symbolic link; the target exists. The other container's mount opens no devices and gives nobody another's rights, and
// what is mounted or unmounted later in one container is not seen in the other. Without a mount at source, also if only
// the container's own files are there, the error wraps [ErrNoMount].
func (c *Container) Share(source string, with *Container, target string) error {
	for _, path := range []string{source, target} {
		if err := checkShared(path); err != nil {
			return err
		}
	}
	from, err := c.mountNamespace()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := with.mountNamespace()
	if err != nil {
		return err
	}
	defer to.Close()
	shared := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in a container then, and ends with this goroutine.
		runtime.LockOSThread()
		shared <- share(from, source, to, target)
	}()
	if err := <-shared; err != nil {
		return fmt.Errorf("sharing the mount at %q of container %s at %q of %s: %w", source, c.id, target, with.id, err)
	}
	return nil
}

func checkShared(path string) error {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) || slices.Contains([]string{"", "proc", "sys", "dev"}, first) {
		return refuse("shared mount at %q", path)
	}
	return nil
}

// mountNamespace opens the namespace of the first process. The number may be another process's by now, but not one's in
// the container's own group that has another namespace than the container's.
func (c *Container) mountNamespace() (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", c.pid))
	if err == nil {
		var pids []int
		if pids, err = groupPids(c.group); err == nil && slices.Contains(pids, c.pid) && !c.done() {
			return ns, nil
		}
		err = errors.Join(err, ns.Close())
	}
	return nil, errors.Join(fmt.Errorf("container %s has ended", c.id), err)
}

// share runs on a thread of its own.
func share(from *os.File, source string, to *os.File, target string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	at, err := enter(from, source)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %w", ErrNoMount, err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Statx_t
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return ErrNoMount
	}
	tree, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	place, err := enter(to, target)
	if err != nil {
		return err
	}
	defer unix.Close(place)
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// enter joins a mount namespace and opens a path from its root. The container may have put anything there.
func enter(ns *os.File, path string) (int, error) {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return -1, os.NewSyscallError("setns", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return fd, nil
}
