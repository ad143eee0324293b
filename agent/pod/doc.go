// SPDX-License-Identifier: Apache-2.0

// Package pod is what a host may do to the pod in this guest: the handlers of
// grpc.AgentService (Kata Containers 4.1, agent.proto) behind the gate of package
// agent. It makes the sandbox, brings images in, turns requests into containers,
// carries their streams and takes everything away again.
//
// Whatever a request says, the code confines it: one sandbox; ids checked before
// they become names; bind sources beneath the pod's own directories; no host path,
// network namespace but a measured one, hook, kernel module or device of the host's choice; every root
// file system is an image that this guest has verified, or the pause program.
//
// Files: service.go the parts and the table of handlers; sandbox.go the sandbox;
// namespaces.go what its containers share; peer.go the network and the disks of a peer pod; create.go, spec.go requests into
// containers; pause.go the pause container; process.go, exec.go their life; stream.go,
// streams.go standard streams; resources.go counters and limits; network.go
// interfaces and routes; guestinfo.go facts about the guest; storage.go
// memory-backed volumes; layers.go layers from the host; disks.go, passthrough.go what comes from devices; share.go mounts of other containers; copyfile.go what the host may write; diagnostic.go termination messages.
package pod
