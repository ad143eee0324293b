// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	driverEphemeral = "ephemeral" // a tmpfs of its own
	driverLocal     = "local"     // a directory of the pod's, on scratch where there is one
	// maxVolumes bounds the memory-backed volumes of a pod.
	maxVolumes = 64
)

// volumeOptions are what a memory-backed emptyDir may ask for.
type volumeOptions struct {
	driver  string
	path    string // absolute, clean, in one of the pod's directories
	size    int64  // bytes; 0 is half of the memory, as tmpfs has it, and for a directory no limit of its own
	mode    uint32
	gid     int // -1 keeps root's
	noexec  bool
	noatime bool
}

// volume is one of the pod's, while containers have it.
type volume struct {
	options volumeOptions
	holders int
}

// parseVolume reads a storage of the two drivers that need nothing of the host's.
func (s *Service) parseVolume(st *kata.Storage) (volumeOptions, error) {
	o := volumeOptions{driver: st.GetDriver(), path: st.GetMountPoint(), mode: 0o777, gid: -1}
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: storage: %s", what)
	}
	if !s.inPod(o.path) {
		return o, refused("mount point " + quoted(o.path) + " is outside of the pod's directories")
	}
	if o.driver == driverEphemeral && st.GetFstype() != "tmpfs" {
		return o, refused("file system " + quoted(st.GetFstype()) + " is not served")
	}
	if len(st.GetDriverOptions()) > 0 {
		return o, refused("driver option " + quoted(st.GetDriverOptions()[0]) + " is not served")
	}
	for _, option := range st.GetOptions() {
		if err := o.set(option); err != nil {
			return o, err
		}
	}
	if o.driver == driverLocal && o.size > 0 && s.cfg.Sized == nil {
		// A directory has no size of its own: taking the option would promise a limit that nothing keeps.
		return o, fail(codes.InvalidArgument, "volume option size is not served for driver %s", driverLocal)
	}
	if g := st.GetFsGroup(); g != nil {
		o.gid = int(g.GetGroupId())
	}
	return o, nil
}

// inPod reports whether a path is clean and lies beneath one of the directories that
// containers' mounts come from.
func (s *Service) inPod(path string) bool {
	if path != filepath.Clean(path) {
		return false
	}
	for _, dir := range []string{"sandbox", "shared/containers"} {
		if rest, ok := strings.CutPrefix(path, filepath.Join(s.cfg.Dir, dir)+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			return dir != "sandbox" || first != "shm" && first != "resolv.conf"
		}
	}
	return false
}

func (o *volumeOptions) set(option string) error {
	key, value, _ := strings.Cut(option, "=")
	bad := fail(codes.InvalidArgument, "volume option %s is not served", quoted(option))
	switch key {
	case "rw", "nosuid", "nodev", "relatime":
	case "noexec":
		o.noexec = true
	case "noatime":
		o.noatime = true
	case "size":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n <= 0 || n > maxSHM {
			return bad
		}
		o.size = n
	case "mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil || n > 0o1777 {
			return bad
		}
		o.mode = uint32(n)
	case "fsgid":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return bad
		}
		o.gid = int(n)
	default:
		return bad
	}
	return nil
}

// hold makes a volume for its first container and returns what gives it up. Every
// container of the pod that names the place gets the same.
func (s *Service) hold(o volumeOptions) (release func() error, err error) {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	v := s.volumes[o.path]
	switch {
	case v == nil && len(s.volumes) >= maxVolumes:
		return nil, fail(codes.ResourceExhausted, "the pod has %d volumes", len(s.volumes))
	case v == nil:
		if err := s.freeForVolume(o.path); err != nil {
			return nil, err
		}
		if err := o.make(s.cfg.Dir, s.cfg.Sized); err != nil {
			return nil, err
		}
		v = &volume{options: o}
		s.volumes[o.path] = v
	case v.options != o:
		return nil, fail(codes.FailedPrecondition, "volume %s exists with other options", quoted(o.path))
	}
	v.holders++
	return func() error { return s.release(v) }, nil
}

func (s *Service) release(v *volume) error {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	if v.holders--; v.holders > 0 {
		return nil
	}
	delete(s.volumes, v.options.path)
	if err := unmount(v.options.path); err != nil {
		return err
	}
	if v.options.driver == driverLocal {
		return os.RemoveAll(v.options.path)
	}
	return os.Remove(v.options.path)
}

// make creates the directory, without following a link below root, and mounts on it. A directory with a size gets a file
// system of sized's.
func (o volumeOptions) make(root string, sized func(size int64, point string) error) error {
	fd, err := makeBeneath(root, strings.TrimPrefix(o.path, root+"/"))
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) {
		return fail(codes.FailedPrecondition, "volume %s contradicts what is there", quoted(o.path))
	}
	if err != nil {
		return fmt.Errorf("making volume %s: %w", o.path, err)
	}
	defer unix.Close(fd)
	if o.driver == driverLocal {
		mount := o.bindSelf
		if o.size > 0 {
			mount = func(fd int) error { return o.mountSized(fd, sized) }
		}
		if err := mount(fd); err != nil {
			return errors.Join(fmt.Errorf("making volume %s: %w", o.path, err), unmount(o.path), os.Remove(o.path))
		}
		return nil
	}
	if err := unix.Mount("tmpfs", fmt.Sprintf("/proc/self/fd/%d", fd), "tmpfs", o.flags(), o.data()); err != nil {
		return errors.Join(fmt.Errorf("mounting volume %s: %w", o.path, err), os.Remove(o.path))
	}
	return nil
}

// bindSelf gives the directory its owner and mode and mounts it on itself, so that what lies on it is held to the
// volume's mount flags and no rename leads out of it.
func (o volumeOptions) bindSelf(fd int) error {
	here := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := o.own(here); err != nil {
		return err
	}
	if err := unix.Mount(here, here, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", o.path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags(), "")
}

// mountSized is bindSelf for a directory with a size.
func (o volumeOptions) mountSized(fd int, sized func(size int64, point string) error) error {
	err := sized(o.size, fmt.Sprintf("/proc/self/fd/%d", fd))
	if errors.Is(err, unix.ENOSPC) {
		return &Failure{Code: codes.ResourceExhausted, Phrase: fmt.Sprintf("volume %s: there is no room for its size", quoted(o.path)), Err: err}
	}
	if err == nil {
		err = o.own(o.path)
	}
	if err != nil {
		return err
	}
	return unix.Mount("", o.path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags(), "")
}

// own gives the volume's directory its owner and mode.
func (o volumeOptions) own(dir string) error {
	mode := o.mode
	if o.gid >= 0 {
		if err := os.Chown(dir, 0, o.gid); err != nil {
			return err
		}
		mode |= unix.S_ISGID
	}
	return unix.Chmod(dir, mode)
}

func (o volumeOptions) flags() uintptr {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if o.noexec {
		flags |= unix.MS_NOEXEC
	}
	if o.noatime {
		flags |= unix.MS_NOATIME
	}
	return flags
}

func (o volumeOptions) data() string {
	mode := o.mode
	if o.gid >= 0 {
		mode |= unix.S_ISGID
	}
	data := fmt.Sprintf("mode=%o", mode)
	if o.gid >= 0 {
		data += fmt.Sprintf(",gid=%d", o.gid)
	}
	if o.size > 0 {
		data += fmt.Sprintf(",size=%d", o.size)
	}
	return data
}

// makeBeneath makes rel below root, the last directory new, and opens it.
func makeBeneath(root, rel string) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		err := unix.Mkdirat(fd, part, 0o755)
		if err != nil && (i == len(parts)-1 || !errors.Is(err, unix.EEXIST)) {
			unix.Close(fd)
			return -1, err
		}
		next, err := beneath(fd, part, unix.O_PATH|unix.O_DIRECTORY)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// volumeStats tells how full one of the pod's volumes is. Any other path would tell
// the host about files that are none of its business.
func (s *Service) volumeStats(_ context.Context, req *kata.VolumeStatsRequest) (*kata.VolumeStatsResponse, error) {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	v := s.volumes[req.GetVolumeGuestPath()]
	if v == nil {
		return nil, fail(codes.NotFound, "there is no volume at %s", quoted(req.GetVolumeGuestPath()))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.options.path, &st); err != nil {
		return nil, fmt.Errorf("asking how full volume %s is: %w", v.options.path, err)
	}
	size := uint64(st.Bsize) //nolint:gosec // the kernel's own
	return &kata.VolumeStatsResponse{
		Usage: []*kata.VolumeUsage{
			{Unit: kata.VolumeUsage_BYTES, Total: st.Blocks * size, Available: st.Bavail * size, Used: (st.Blocks - st.Bfree) * size},
			{Unit: kata.VolumeUsage_INODES, Total: st.Files, Available: st.Ffree, Used: st.Files - st.Ffree},
		},
		VolumeCondition: &kata.VolumeCondition{},
	}, nil
}
