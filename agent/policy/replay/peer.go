// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// PodNetNS is where a peer pod keeps its network.
	PodNetNS = "/run/netns/podns"
	// CloudVolume is a disk of the pod's that the forwarder has mounted.
	CloudVolume = "/run/cloud-volumes/scratch"
)

// Forward is a sequence as cloud-api-adaptor's forwarder passes it on in a peer pod: a sandbox loses its name servers,
// and every container that has a platform part gets the path of the pod's network behind its own namespaces.
func Forward(steps []Step) []Step {
	return altered(steps, func(m *kata.CreateContainerRequest) {
		if l := m.GetOCI().GetLinux(); l != nil {
			l.Namespaces = append(l.Namespaces, &kata.LinuxNamespace{Type: "network", Path: PodNetNS})
		}
	})
}

// OnDisk is a sequence in which a disk that the forwarder has mounted stands in for the pod's volume of memory: the
// mount's source and type are changed, and no storage comes with it.
func OnDisk(steps []Step) []Step {
	return altered(steps, func(m *kata.CreateContainerRequest) {
		for _, mount := range m.GetOCI().GetMounts() {
			if mount.Source == Scratch {
				mount.Source, mount.Type = CloudVolume, "bind"
			}
		}
		m.Storages = slices.DeleteFunc(m.Storages, func(s *kata.Storage) bool { return s.MountPoint == Scratch })
	})
}

func altered(steps []Step, container func(*kata.CreateContainerRequest)) []Step {
	out := slices.Clone(steps)
	for i := range out {
		out[i].Msg = proto.Clone(out[i].Msg)
		switch m := out[i].Msg.(type) {
		case *kata.CreateSandboxRequest:
			m.Dns = nil
		case *kata.CreateContainerRequest:
			container(m)
		}
	}
	return out
}

// PeerAttacks are what a host can make of a forwarder that passes on what it gets: networks and disks that are not the
// pod's. What the built-in policy leaves to the guest, which knows where the pod's network is, the guest has to refuse.
func (s Stack) PeerAttacks() []Step {
	q := new(sequence)
	s.open(q)
	all := containers()
	plain := s.create(&all[2], "")
	s.copies(q, &all[2])
	q.steps = Forward(q.steps)
	network := func(path string) func(*create) {
		return func(m *create) {
			m.OCI.Linux.Namespaces = append(m.OCI.Linux.Namespaces, &kata.LinuxNamespace{Type: "network", Path: path})
		}
	}
	inOrder(map[string]string{
		"the guest's": "/proc/1/ns/net", "its own": "/proc/self/ns/net", "one beside": "/run/netns/other", "one by a parent": "/run/netns/x/../podns",
	}, func(name, path string) {
		q.add("network: "+name, s.changed(plain, network(path)), false, true)
	})
	inOrder(map[string]string{
		"all of them": "/run/cloud-volumes", "the same with a slash": "/run/cloud-volumes/", "one by a parent": "/run/cloud-volumes/../casemate",
		"the parent": "/run/cloud-volumes/..", "inside of one": CloudVolume + "/etc", "itself": "/run/cloud-volumes/.", "one that is not mounted": "/run/cloud-volumes/empty",
		"a link to the guest's root": "/run/cloud-volumes/link", "one beside": "/run/cloud-volumes-of-others/scratch",
	}, func(name, source string) {
		q.neither("disk: "+name, s.changed(plain, func(m *create) {
			network(PodNetNS)(m)
			m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: "/data", Source: source, Type: "bind", Options: []string{"rbind"}})
		}))
	})
	q.neither("disk over its program", s.changed(plain, func(m *create) {
		network(PodNetNS)(m)
		m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: "/plain", Source: CloudVolume, Type: "bind", Options: []string{"rbind"}})
	}))
	q.both("nothing of that", s.changed(plain, network(PodNetNS)))
	return q.steps
}
