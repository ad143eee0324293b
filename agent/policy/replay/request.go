// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/json"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/api/kata"
)

func (s Stack) sandbox() *kata.CreateSandboxRequest {
	return &kata.CreateSandboxRequest{
		Hostname: podName, SandboxId: s.SandboxID(),
		// A file's lines, cut at each line feed: the last is empty.
		Dns: []string{"# written by the engine", "search default.svc.cluster.local svc.cluster.local cluster.local", "nameserver 10.96.0.10", "options ndots:5", ""},
		Storages: []*kata.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm",
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
		}},
	}
}

func (s Stack) network() (*kata.UpdateInterfaceRequest, *kata.UpdateRoutesRequest, *kata.AddARPNeighborsRequest) {
	i := &kata.UpdateInterfaceRequest{Interface: &kata.Interface{
		Device: "eth0", Name: "eth0", Mtu: 1450, HwAddr: "02:00:ca:fe:00:05",
		IPAddresses: []*kata.IPAddress{
			{Address: "10.244.0.5", Mask: "24"}, {Family: kata.IPFamily_v6, Address: "fe80::ca:feff:fe00:5", Mask: "64"},
		},
	}}
	if s.Runtime == RustRuntime {
		i.Interface.Type = "veth"
	}
	r := &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{
		{Gateway: "10.244.0.1", Device: "eth0"},
		{Dest: "10.244.0.0/24", Device: "eth0", Source: "10.244.0.5", Scope: 253},
	}}}
	n := &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{
		{Device: "eth0", ToIPAddress: &kata.IPAddress{Address: "10.244.0.1"}, Lladdr: "02:00:ca:fe:00:01", State: 128},
	}}}
	return i, r, n
}

// pull is the storage of a container's root; image is "" for the pause container.
func (s Stack) pull(id, name, image string) *kata.Storage {
	metadata, err := json.Marshal(map[string]any{"metadata": s.annotations(id, name, image)})
	if err != nil {
		panic(err) // strings only
	}
	source := image
	if image == "" {
		source = "pause"
	}
	return &kata.Storage{
		Driver: "image_guest_pull", DriverOptions: []string{"image_guest_pull=" + string(metadata)}, Source: source, Fstype: "overlay",
		MountPoint: "/run/kata-containers/" + id + "/rootfs",
	}
}

// pause is the request for the pod's first container.
func (s Stack) pause() *kata.CreateContainerRequest {
	id := s.SandboxID()
	return &kata.CreateContainerRequest{
		ContainerId: id, ExecId: s.execID(id), Storages: []*kata.Storage{s.pull(id, "POD", "")},
		OCI: &kata.Spec{
			Version: s.version(), Process: s.pauseProcess(), Root: &kata.Root{Path: "/run/kata-containers/" + id + "/rootfs", Readonly: true},
			Hostname: podName, Mounts: s.pauseMounts(), Hooks: s.hooks(), Annotations: s.annotations(id, "POD", ""), Linux: s.linux(id),
		},
	}
}

// create is the request for one of the pod's containers; again is "" or a word for a second one.
func (s Stack) create(c *container, again string) *kata.CreateContainerRequest {
	id := s.ID(c.name + again)
	m := &kata.CreateContainerRequest{
		ContainerId: id, ExecId: s.execID(id), Storages: []*kata.Storage{s.pull(id, c.name, c.reference)},
		OCI: &kata.Spec{
			Version: s.version(), Process: s.process(c), Root: &kata.Root{Path: "/run/kata-containers/" + id + "/rootfs"},
			Mounts: s.mounts(id, c), Hooks: s.hooks(), Annotations: s.annotations(id, c.name, c.reference), Linux: s.linux(id),
		},
	}
	if c.scratch {
		m.Storages = append(m.Storages, &kata.Storage{
			Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: Scratch, Options: []string{"size=1048576"},
		})
	}
	return m
}

// file is one copied file, in one piece.
func (s Stack) file(path, content string) *kata.CopyFileRequest {
	m := &kata.CopyFileRequest{
		Path: path, FileSize: int64(len(content)), FileMode: 0o644, DirMode: 0o755, Data: []byte(content),
	}
	m.FileMode |= unix.S_IFREG
	if s.Runtime == RustRuntime {
		m.DirMode = 0
	}
	return m
}

func (s Stack) directory(path string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: unix.S_IFDIR | 0o755, DirMode: 0o755}
}

func (s Stack) link(path, target string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{
		Path: path, FileMode: unix.S_IFLNK | 0o777, DirMode: 0o755, FileSize: int64(len(target)), Data: []byte(target),
	}
}

// projected is a volume in the form of a projected token or a config map: a directory of the time, a link to it, and
// a link for each file.
func (s Stack) projected(root, at, name, content string) []*kata.CopyFileRequest {
	return []*kata.CopyFileRequest{
		s.directory(root), s.directory(root + "/" + at), s.file(root+"/"+at+"/"+name, content),
		s.link(root+"/..data", at), s.link(root+"/"+name, "..data/"+name),
	}
}
