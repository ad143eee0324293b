// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// Drivers of PCI functions that the host gives to the pod: one that the container drives itself, and one that the
// guest's kernel keeps.
const (
	driverVFIO      = "vfio-pci"
	driverVFIOGuest = "vfio-pci-gk"
)

const (
	// maxFunctions caps the PCI functions of a device, maxNames the devices that annotations name.
	maxFunctions = 16
	maxNames     = 64
	// cdiAnnotation begins the annotations that name devices, and pciVariable the variables that hold addresses of PCI
	// functions, with pciInfo at the end where they hold them in a JSON text.
	cdiAnnotation = "cdi.k8s.io/"
	pciVariable   = "PCIDEVICE_"
	pciInfo       = "_INFO"
)

// vfioControl is the node that every container with a group of functions has.
var vfioControl = specs.LinuxDevice{Path: "/dev/vfio/vfio", Type: "c", Major: 10, Minor: 196}

// hostFunction is a PCI function's address: domain, bus, slot and function.
var hostFunction = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// CDI knows what specifications in the measured root say of devices.
type CDI interface {
	// Edit gives a container the devices of these names, and returns the nodes and the directories of bind mounts that
	// it has added to the spec.
	Edit(names []string, s *specs.Spec) (nodes []specs.LinuxDevice, sources []string, err error)
}

// function is a device of the request's that is one or several PCI functions.
type function struct {
	path      string // of its node, as the request's spec has it
	guest     bool   // the kernel drives it, and the container gets no node
	addresses []pciAddress
}

// pciAddress is where a function was in the host and where it is in the guest.
type pciAddress struct{ host, path string }

// parseFunctions takes the PCI functions out of a request's devices and returns the rest.
func (s *Service) parseFunctions(list []*kata.Device) (out []function, rest []*kata.Device, err error) {
	seen := map[string]bool{}
	for _, d := range list {
		if d.GetType() != driverVFIO && d.GetType() != driverVFIOGuest {
			rest = append(rest, d)
			continue
		}
		refused := func(what string) error {
			return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: devices: device %s %s", quoted(d.GetContainerPath()), what)
		}
		f := function{path: d.GetContainerPath(), guest: d.GetType() == driverVFIOGuest}
		if n := len(d.GetOptions()); s.cfg.Devices == nil || n == 0 || n > maxFunctions || len(out) == maxDisks {
			return nil, nil, refused("has no functions, or more than a device may have")
		}
		for _, option := range d.GetOptions() {
			host, path, _ := strings.Cut(option, "=")
			if !hostFunction.MatchString(host) || s.cfg.Devices.Check(driverVFIO, path) != nil || seen[host] || seen[path] {
				return nil, nil, refused("has a function " + quoted(option) + " that is none, or is named twice")
			}
			seen[host], seen[path] = true, true
			f.addresses = append(f.addresses, pciAddress{host, path})
		}
		out = append(out, f)
	}
	return out, rest, nil
}

// cdiNames are the devices that a request's annotations name, in the order of the annotations' names.
func cdiNames(annotations map[string]string) ([]string, error) {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if strings.HasPrefix(key, cdiAnnotation) {
			names = append(names, strings.Split(annotations[key], ",")...)
		}
	}
	if len(names) > maxNames {
		return nil, fail(codes.InvalidArgument, "annotations name %d devices, at most %d", len(names), maxNames)
	}
	return names, nil
}

// openFunctions waits for the plan's PCI functions and takes those from the kernel that the container is to drive.
func (s *Service) openFunctions(ctx context.Context, p *plan) error {
	p.addresses, p.nodes = map[string]string{}, map[string]specs.LinuxDevice{}
	driven := map[string][]string{} // by the container, by the devices' paths
	for _, f := range p.functions {
		var own []string
		for _, a := range f.addresses {
			at, err := s.cfg.Devices.Wait(ctx, driverVFIO, a.path)
			if err != nil {
				return &Failure{Code: codes.NotFound, Phrase: fmt.Sprintf("device %s: there is no PCI function at %s", quoted(f.path), a.path), Err: err}
			}
			p.addresses[a.host] = at
			own = append(own, at)
		}
		if f.guest {
			continue
		}
		if driven[f.path] != nil {
			return fail(codes.InvalidArgument, "two devices are named %s", quoted(f.path))
		}
		driven[f.path] = own
	}
	all := slices.Concat(slices.Collect(maps.Values(driven))...)
	if err := s.takeFunctions(p.id, all); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(driven)) {
		node, err := s.bind(ctx, driven[path], all)
		if err != nil {
			return &Failure{Code: codes.FailedPrecondition, Phrase: fmt.Sprintf("device %s could not be given to a container", quoted(path)), Err: err}
		}
		p.nodes[path] = node
	}
	return nil
}

// takeFunctions makes functions those of one container for as long as it is there. Which device an address leads to is
// the host's word, and a group's node opens all of it: what another container works on would lie open to this one.
func (s *Service) takeFunctions(id string, functions []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range functions {
		if other, taken := s.driven[f]; taken && other != id {
			return fail(codes.FailedPrecondition, "PCI function %s is another container's, %s", f, other)
		}
	}
	for _, f := range functions {
		s.driven[f] = id
	}
	return nil
}

// leaveFunctions undoes takeFunctions.
func (s *Service) leaveFunctions(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.driven, func(_, owner string) bool { return owner == id })
	return nil
}

// bind takes a device's functions. With them comes what else of the request's is in their group.
func (s *Service) bind(ctx context.Context, functions, all []string) (specs.LinuxDevice, error) {
	for {
		node, err := s.cfg.Devices.Bind(ctx, functions)
		var with interface {
			error
			Stranger() string
		}
		if !errors.As(err, &with) || slices.Contains(functions, with.Stranger()) || !slices.Contains(all, with.Stranger()) {
			return node, err
		}
		functions = append(slices.Clone(functions), with.Stranger())
	}
}

// addFunctions puts the guest's nodes and addresses into the spec in place of the host's, and what specifications of the
// measured root say of the devices that annotations name. The container may have that, says policy.
func (s *Service) addFunctions(p *plan, spec *specs.Spec, policy *container.Policy) error {
	placed := 0
	for i, d := range spec.Linux.Devices {
		node, ok := p.nodes[d.Path]
		switch {
		case ok:
			placed++
			spec.Linux.Devices[i] = node
			// A rule for the host's number comes with it; package container makes its own.
			spec.Linux.Resources.Devices = slices.DeleteFunc(spec.Linux.Resources.Devices, func(r specs.LinuxDeviceCgroup) bool {
				return r.Type == d.Type && r.Major != nil && *r.Major == d.Major && r.Minor != nil && *r.Minor == d.Minor
			})
			policy.Devices = append(policy.Devices, node)
		case len(p.nodes) > 0 && d.Path == vfioControl.Path:
			policy.Devices = append(policy.Devices, vfioControl)
		}
	}
	if placed != len(p.nodes) {
		return fail(codes.InvalidArgument, "%d devices have a node, and the spec lists %d of them", len(p.nodes), placed)
	}
	var err error
	if spec.Process.Env, err = guestAddresses(spec.Process.Env, p.addresses); err != nil || len(p.cdi) == 0 {
		return err
	}
	if s.cfg.CDI == nil {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: annotations name devices, and the guest has no specifications of any")
	}
	nodes, sources, err := s.cfg.CDI.Edit(p.cdi, spec)
	if err != nil {
		return &Failure{Code: codes.NotFound, Phrase: "a device that annotations name cannot be had", Err: err}
	}
	policy.Devices = append(policy.Devices, nodes...)
	policy.MountSources = append(policy.MountSources, sources...)
	return nil
}

// guestAddresses rewrites the variables in which Kubernetes' device plugins tell a program where its functions are. An
// address that is none of the request's would be the host's, and means nothing here.
func guestAddresses(env []string, guest map[string]string) ([]string, error) {
	out := slices.Clone(env)
	var pairs []string
	for _, host := range slices.Sorted(maps.Keys(guest)) {
		pairs = append(pairs, host, guest[host])
	}
	inText := strings.NewReplacer(pairs...)
	for i, v := range out {
		name, value, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, pciVariable) {
			continue
		}
		if strings.HasSuffix(name, pciInfo) {
			out[i] = name + "=" + inText.Replace(value)
			continue
		}
		list := strings.Split(value, ",")
		for j, host := range list {
			at, ok := guest[host]
			if !ok {
				return nil, fail(codes.InvalidArgument, "variable %s names the PCI function %s, and the request has no such device", quoted(name), quoted(host))
			}
			list[j] = at
		}
		out[i] = name + "=" + strings.Join(list, ",")
	}
	return out, nil
}
