// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// The pod's directory (kata 4.1 names it) and what lies below: sandbox/shm and sandbox/resolv.conf, the pod's
// volumes, the namespaces, and under shared/containers what the host copies. Whoever can write to a directory can
// swap what lies in it, and both the agent and libcontainer find things by their names. So what a container can be
// given to write, a copied tree or a volume, is always the whole of it, and nothing of the agent's lies below it.
const (
	// maxShared and maxSharedFiles bound what the host leaves in the guest's memory by copying: the files of a pod's
	// configuration, not its data.
	maxShared      = 256 << 20
	maxSharedFiles = 64 << 10
)

func (s *Service) shared() string { return filepath.Join(s.cfg.Dir, "shared", "containers") }

// reservedID reports names that are the pod's own: a container of that name would have its directory there.
func reservedID(id string) bool { return id == "shared" || id == "sandbox" || id == "namespaces" }

// mountCopies gives what is copied a file system of its own, with an end to bytes and files, on which a device node
// that a container makes there opens nothing, also not for the agent.
func (s *Service) mountCopies(box *sandbox) error {
	at := s.shared()
	data := fmt.Sprintf("mode=0755,size=%d,nr_inodes=%d", maxShared, maxSharedFiles)
	if err := unix.Mount("shared", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mounting a file system for copies: %w", err)
	}
	box.undo = append(box.undo, func() error { return unmount(at) })
	return nil
}

// copyRoot splits the path of a copy, below shared/containers, into the name of its tree, which is what containers
// mount, and the rest. The two names in front are those of directories that kata's runtimes put trees into.
func copyRoot(parts []string) (tree string, below []string) {
	n := 0
	for n < 2 && n < len(parts)-1 && (parts[n] == "passthrough" && n == 0 || parts[n] == "watchable") {
		n++
	}
	return strings.Join(parts[:n+1], "/"), parts[n+1:]
}

// overlaps reports whether one path is the other or lies below it.
func overlaps(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// freeForCopies refuses the tree of a copy that has a volume in it: what a volume holds is the workload's. The caller
// holds volumesMu until the copy is done.
func (s *Service) freeForCopies(tree string) error {
	top := filepath.Join(s.shared(), tree)
	for path := range s.volumes {
		if overlaps(path, top) {
			return fail(codes.PermissionDenied, "CopyFileRequest is blocked by policy: copy-path: %s holds a volume", quoted(tree))
		}
	}
	return nil
}

// freeForVolume refuses a volume inside of another, of shared memory or of a copied tree. The caller holds volumesMu.
func (s *Service) freeForVolume(path string) error {
	taken := fail(codes.FailedPrecondition, "volume %s contradicts what is there", quoted(path))
	for other := range s.volumes {
		if overlaps(path, other) {
			return taken
		}
	}
	rest, ok := strings.CutPrefix(path, s.shared()+"/")
	if !ok {
		return nil
	}
	tree, _ := copyRoot(strings.Split(rest, "/"))
	if s.trees[tree] {
		return taken
	}
	return nil
}

// widening are options that give back, on a mount and all below it, what others have taken (OCI runtime specification,
// config-linux.md, "recursive" options): they come last, whatever their place.
var widening = []string{"rrw", "rsuid", "rdev", "rexec", "rsymfollow"}

// checkOptions refuses a mount that is one thing to a policy that looks for an option, and another to the kernel.
func checkOptions(m specs.Mount) error {
	for _, o := range m.Options {
		if slices.Contains(widening, o) {
			return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount: option %s of %s is not served", o, quoted(m.Destination))
		}
	}
	if (slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")) && slices.Contains(m.Options, "rw") {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount: %s is both read-only and writable", quoted(m.Destination))
	}
	return nil
}

// checkSources refuses every bind mount whose source is not a copied tree, shared memory or one of the pod's volumes,
// those of a peer pod's forwarder among them, each as a whole. Package container has the last word on links. A volume stays
// for as long as a container has it, also one whose request asked for the mount alone: otherwise the host could take away
// the container that asked for the volume, and copy a tree of its own to where the mount is about to look.
func (s *Service) checkSources(e *entry, mounts []specs.Mount) error {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	for i, m := range mounts {
		if err := checkOptions(m); err != nil {
			return err
		}
		if !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		if s.cloudVolume(m.Source) {
			if err := checkCloudVolume(&mounts[i]); err != nil {
				return err
			}
			continue
		}
		if v := s.held(m.Source); v != nil {
			v.holders++
			e.undo = append(e.undo, func() error { return s.release(v) })
			continue
		}
		if m.Source == filepath.Join(s.cfg.Dir, "sandbox", "shm") {
			continue
		}
		rest, ok := strings.CutPrefix(m.Source, s.shared()+"/")
		if tree, below := copyRoot(strings.Split(rest, "/")); ok && len(below) == 0 && s.trees[tree] {
			continue
		}
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount: %s is outside of what containers may be given", quoted(m.Source))
	}
	return nil
}

// openRegular opens a file below dir, without following a link, only if it is a regular one: a container may have put
// a pipe, on which the agent would wait, or a device in its place.
func openRegular(dir int, name string, flags int) (*os.File, error) {
	found, err := beneath(dir, name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNotRegular
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found), flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

var errNotRegular = errors.New("not a regular file")
