// SPDX-License-Identifier: Apache-2.0

// Package devmapper makes and removes device-mapper mappings through the kernel's own interface
// (linux/dm-ioctl.h; kernel Documentation/admin-guide/device-mapper), without libdevmapper and without udev.
//
// A table is made of a closed set of Go types (Crypt, Integrity, Verity, Linear), so that no string from outside
// ever becomes a target type or an option. Options that give integrity away cannot be expressed. Keys are byte
// slices that the caller owns and clears; the copies made here are cleared before a call returns, and the kernel is
// told to clear its own.
//
//   - control.go: create, remove, status, versions
//   - crypt.go, integrity.go, linear.go, verity.go: the targets
//   - ioctl.go: the structures of the interface
//   - line.go: parameter lines
//   - node.go: nodes in /dev/mapper
//   - signature.go: signatures of root hashes, on their way to the kernel
package devmapper
