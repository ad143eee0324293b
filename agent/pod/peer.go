// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// A peer pod (cloud-api-adaptor) is a machine of a cloud's. Another program in it, the forwarder, holds the line to the
// host, keeps the pod's network in a namespace apart from the machine's own and mounts the pod's disks; it speaks to the
// agent on a unix socket and alters what it passes on: CreateContainer gets the namespace's path, CreateSandbox loses
// its name servers, and a volume's mount source becomes a directory below CloudVolumes.

// CloudVolumes is where a peer pod's forwarder mounts what the pod's volumes are kept on, each in a directory of its own.
const CloudVolumes = "/run/cloud-volumes"

// podNetNS is the path of the network namespace that the pod lives in, "" for the guest's own.
func (s *Service) podNetNS() string {
	if s.cfg.NetNS == nil {
		return ""
	}
	return s.cfg.NetNS()
}

// links opens the pod's network. The caller closes it.
func (s *Service) links() (*netlink.Handle, error) {
	path := s.podNetNS()
	if path == "" {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, fmt.Errorf("opening the guest's network: %w", err)
		}
		return h, nil
	}
	absent := func(err error) error {
		return &Failure{Code: codes.FailedPrecondition, Phrase: "the pod's network namespace is not there", Err: err}
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, absent(fmt.Errorf("opening %s: %w", path, err))
	}
	defer ns.Close()
	kind, err := unix.IoctlRetInt(int(ns), unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		err = fmt.Errorf("namespace of type %#x", kind)
	}
	if err != nil {
		return nil, absent(fmt.Errorf("%s is no network namespace: %w", path, err))
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening the network in %s: %w", path, err)
	}
	return h, nil
}

// netNamespace is the container's place in the pod's network. Where the pod has a namespace, the request may name it or
// none: another one is a forwarder that was set up for something else. Where it has none, a path is the host's own and
// means nothing here.
func (p *plan) netNamespace(own string) ([]specs.LinuxNamespace, error) {
	if own == "" {
		return nil, nil
	}
	for _, ns := range p.oci.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" && ns.GetPath() != "" && ns.GetPath() != own {
			return nil, fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: namespace: network namespace %s is not the pod's", quoted(ns.GetPath()))
		}
	}
	return []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: own}}, nil
}

// cloudVolume reports whether a mount's source has the form of a peer pod's volume, which is served in a peer pod alone.
func (s *Service) cloudVolume(source string) bool {
	name, ok := strings.CutPrefix(source, CloudVolumes+"/")
	return ok && s.podNetNS() != "" && name != "." && name != ".." && name != "" && !strings.Contains(name, "/")
}

// checkCloudVolume wants something to be mounted there: the forwarder makes a directory for every source that does not
// exist, and a workload that wrote there would lose its data with the machine. Nothing on a volume is a device, nor does
// it give anybody another's rights: who made it is not known.
func checkCloudVolume(m *specs.Mount) error {
	refused := func(why string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount: %s %s", quoted(m.Source), why)
	}
	dir, err := unix.Open(CloudVolumes, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return refused("is no volume of this pod's")
	}
	defer unix.Close(dir)
	fd, err := beneath(dir, filepath.Base(m.Source), unix.O_PATH)
	if err != nil {
		return refused("is no volume of this pod's")
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return fmt.Errorf("asking what is at %s: %w", m.Source, os.NewSyscallError("statx", err))
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return refused("is a directory on which no volume is mounted")
	}
	m.Options = append(slices.Clone(m.Options), "nosuid", "nodev")
	return nil
}
