// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

const (
	pullDriver = "image_guest_pull"
	// pullOption introduces the metadata of a guest pull in its driver options.
	pullOption = "image_guest_pull="
	// maxReference caps an image reference.
	maxReference = 4 << 10
	// maxStorages caps what one request wants mounted: an image's layers, at most maxPartition on a disk, and volumes.
	maxStorages = 192
)

// plan is a CreateContainer request after it has been checked: what is to be made,
// and nothing that the request could change any more.
type plan struct {
	id        string
	name      string // in the pod's file
	image     string // reference; "" for the pause container
	pause     bool
	sharePID  bool
	volumes   []volumeOptions
	disks     []disk
	layers    []layerDevice
	functions []function
	cdi       []string // names of devices
	shares    []share
	oci       *kata.Spec
	user      *kata.StringUser // nil unless the user is asked for by name

	imageProcess specs.Process // once the image is there
	opened       []*Volume     // once they are open
	// Once PCI functions are there: their addresses in the guest by those in the host, and the nodes by their paths.
	addresses map[string]string
	nodes     map[string]specs.LinuxDevice
}

func (s *Service) plan(req *kata.CreateContainerRequest) (*plan, error) {
	p := &plan{id: req.GetContainerId(), sharePID: req.GetSandboxPidns(), oci: req.GetOCI(), user: req.GetStringUser()}
	if container.CheckID(p.id) != nil || reservedID(p.id) {
		return nil, fail(codes.InvalidArgument, "container id %.140q is no name", p.id)
	}
	if e := req.GetExecId(); e != "" && e != p.id {
		return nil, fail(codes.InvalidArgument, "exec id %.140q is not the container's", e)
	}
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: %s", what)
	}
	switch {
	case p.oci == nil || p.oci.GetProcess() == nil || p.oci.GetRoot() == nil || p.oci.GetLinux() == nil:
		return nil, fail(codes.InvalidArgument, "the request has no process, root or linux section")
	case req.GetStdinPort() != 0 || req.GetStdoutPort() != 0 || req.GetStderrPort() != 0:
		return nil, refused("passfd: streams go through requests")
	case len(req.GetStorages()) > maxStorages:
		return nil, fail(codes.InvalidArgument, "%d storages, at most %d", len(req.GetStorages()), maxStorages)
	}
	if err := s.planDevices(p, req.GetDevices()); err != nil {
		return nil, err
	}
	p.name = containerName(p.oci.GetAnnotations())
	if err := p.parseShares(req.GetSharedMounts()); err != nil {
		return nil, err
	}
	layered := false
	for _, st := range req.GetStorages() {
		if isLayer(st) {
			layered = true
			if err := s.parseLayer(p, st); err != nil {
				return nil, err
			}
			continue
		}
		switch st.GetDriver() {
		case driverEphemeral, driverLocal, driverBlk, driverSCSI, driverMMIO:
			v, err := s.parseVolume(st)
			if err != nil {
				return nil, err
			}
			p.volumes = append(p.volumes, v)
			continue
		case pullDriver:
		default:
			return nil, refused("storage: driver " + quoted(st.GetDriver()) + " is not served")
		}
		if p.image != "" || p.pause {
			return nil, refused("storage: a container has one image")
		}
		if len(st.GetSource()) > maxReference {
			return nil, fail(codes.InvalidArgument, "image reference of %d bytes, at most %d", len(st.GetSource()), maxReference)
		}
		p.pause, p.image = isSandbox(st), st.GetSource()
	}
	if layered {
		if p.image != "" || p.pause {
			return nil, refused("storage: a container has one image")
		}
		if err := p.layeredImage(s.cfg.Layers != nil); err != nil {
			return nil, err
		}
	}
	if p.pause {
		if len(p.disks)+len(p.functions)+len(p.shares) > 0 {
			return nil, refused("devices: the pause container has none, and no mounts of others")
		}
		p.image, p.cdi = "", nil
		return p, nil
	}
	switch a := p.oci.GetAnnotations(); {
	case p.image == "":
		return nil, refused("image: the root file system is an image that the guest pulls")
	case a[typeContainerd] == "sandbox" || a[typeCRIO] == "sandbox":
		// Policies tell the pause container by these; one that asks no more of it would let any command by.
		return nil, refused("image: the sandbox's own container is the pause program, and a storage says otherwise")
	}
	return p, nil
}

// planDevices takes the request's devices apart, and those that its annotations name.
func (s *Service) planDevices(p *plan, list []*kata.Device) error {
	functions, rest, err := s.parseFunctions(list)
	if err != nil {
		return err
	}
	p.functions = functions
	if p.disks, err = s.parseDisks(rest); err != nil {
		return err
	}
	p.cdi, err = cdiNames(p.oci.GetAnnotations())
	return err
}

// isSandbox reads from the metadata that a runtime copies out of the container's
// annotations whether this is the pause container. Saying so wrongly gets the host
// a program that does nothing.
func isSandbox(st *kata.Storage) bool {
	return slices.ContainsFunc(st.GetDriverOptions(), func(o string) bool {
		metadata, ok := strings.CutPrefix(o, pullOption)
		return ok && sandboxMetadata([]byte(metadata))
	})
}

func quoted(s string) string {
	if len(s) > 80 {
		s = s[:80]
	}
	return "\"" + strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, s), "?") + "\""
}
