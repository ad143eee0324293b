// SPDX-License-Identifier: Apache-2.0

// Package vsockdev is a virtio-vsock device in user space: the back end of QEMU's vhost-user-vsock-pci, so that a
// test can reach the real AF_VSOCK sockets of a guest on a machine without /dev/vhost-vsock.
//
// It implements the vhost-user protocol (QEMU docs/interop/vhost-user) as far as this device needs it, split
// virtqueues and stream sockets (Virtual I/O Device 1.2, sections 2.7 and 5.10). The host side is the "hybrid" form
// that Firecracker and Cloud Hypervisor made common: connect to a unix socket, send "CONNECT PORT\n", read
// "OK PORT\n"; a guest that dials port N of context id 2 reaches the unix socket of the same name with "_N" behind.
//
//   - device.go: life of the device, packets to and from the guest
//   - host.go: the unix socket side
//   - packet.go: the packet header
//   - queue.go: guest memory and virtqueues
//   - stream.go: one connection
//   - vhostuser.go: the control messages from QEMU
package vsockdev
