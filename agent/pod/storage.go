// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	driverEphemeral = "ephemeral" // a tmpfs of its own
	driverLocal     = "local"     // a directory of the pod's, on scratch where there is one
	driverBlk       = "blk"       // a disk of the host's for an emptyDir, by its place on the PCI bus,
	driverSCSI      = "scsi"      // by target and unit, or
	driverMMIO      = "mmioblk"   // by its name
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
	disk    disk // of the two drivers with one
}

// volume is one of the pod's, while containers have it.
type volume struct {
	options volumeOptions
	holders int
	close   func() error // nil: unmounting is all
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
	if o.driver == driverBlk || o.driver == driverSCSI || o.driver == driverMMIO {
		if err := s.parseEncrypted(st, &o); err != nil {
			return o, err
		}
	} else if len(st.GetDriverOptions()) > 0 {
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

// parseEncrypted takes kata's encrypted emptyDir, a new file system on a disk under a key that ends with it, and no other
// file system of the host's. That it is encrypted, and with integrity, is not the request's to say.
func (s *Service) parseEncrypted(st *kata.Storage, o *volumeOptions) error {
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: storage: %s", what)
	}
	options := slices.Sorted(slices.Values(st.GetDriverOptions()))
	at, ok := s.diskAt(o.driver, st.GetSource())
	switch {
	case s.cfg.Encrypted == nil:
		return refused("driver " + quoted(o.driver) + " is not served")
	case !slices.Equal(options, []string{"create_filesystem", "encryption_key=ephemeral"}):
		return refused("a disk is served as a new, encrypted file system alone")
	case st.GetFstype() != "ext4":
		return refused("file system " + quoted(st.GetFstype()) + " is not served")
	case !ok:
		return refused("disk " + quoted(st.GetSource()) + " has a place that is not served")
	}
	o.disk = at
	return nil
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
func (s *Service) hold(ctx context.Context, o volumeOptions) (release func() error, err error) {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	v := s.volumes[o.path]
	if v != nil && v.holders == 0 {
		if err := s.discard(v); err != nil {
			return nil, err
		}
		v = nil
	}
	switch {
	case v == nil && len(s.volumes) >= maxVolumes:
		return nil, fail(codes.ResourceExhausted, "the pod has %d volumes", len(s.volumes))
	case v == nil:
		if err := s.freeForVolume(o.path); err != nil {
			return nil, err
		}
		v = &volume{options: o}
		if err := s.make(ctx, v); err != nil {
			return nil, err
		}
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
	return s.discard(v)
}

// discard closes a volume without holders. What does not close stays known, for the next to try once more, and is
// nobody's: its mount may be gone. The caller holds volumesMu.
func (s *Service) discard(v *volume) error {
	undo := v.close
	if undo == nil {
		undo = func() error { return unmount(v.options.path) }
	}
	if err := undo(); err != nil {
		return err
	}
	delete(s.volumes, v.options.path)
	if v.options.driver == driverLocal {
		return os.RemoveAll(v.options.path)
	}
	return os.Remove(v.options.path)
}

// held is the volume of a path while containers have it; nil for none. The caller holds volumesMu.
func (s *Service) held(path string) *volume {
	if v := s.volumes[path]; v != nil && v.holders > 0 {
		return v
	}
	return nil
}

// volumeStats tells how full one of the pod's volumes is. Any other path would tell
// the host about files that are none of its business.
func (s *Service) volumeStats(_ context.Context, req *kata.VolumeStatsRequest) (*kata.VolumeStatsResponse, error) {
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	v := s.held(req.GetVolumeGuestPath())
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
