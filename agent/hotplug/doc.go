// SPDX-License-Identifier: Apache-2.0

// Package hotplug waits for devices that the host plugs into the running guest: virtio disks by PCI path, by channel
// path or by node, SCSI disks by target and unit, network interfaces and other PCI functions by PCI path (Kata Containers
// 4.1: the agent's device and storage drivers blk, blk-ccw, mmioblk, nvdimm, scsi and vfio-pci, and UpdateInterface).
//
// The kernel announces devices on a socket (NETLINK_KOBJECT_UEVENT, kernel's Documentation/core-api/kobject.rst). An
// announcement is taken for no more than a reason to look: what a device is and what it is called is read in sysfs, under
// the place that a request named, so that no text of the host's becomes a path and no device is taken that nobody asked
// for. Whoever waits listens first and looks then, and nothing is lost in between.
//
// Refused: an address of another form than its driver's; two devices where one is meant; partitions; a disk whose node in
// /dev is another device; announcements that come from a program.
//
// Files: event.go announcements; listen.go the socket; address.go addresses; sysfs.go the places; wait.go waiting; vfio.go functions that a container
// drives itself.
package hotplug
