// SPDX-License-Identifier: Apache-2.0

// Package cdi gives containers the devices that Container Device Interface specifications of the measured root describe
// (CNCF CDI 0.8, SPEC.md: kind, devices, containerEdits).
//
// A request names devices, VENDOR/CLASS=DEVICE; what that means is read from files of the guest's own root alone, never
// from the request. Refused: edits with hooks, since a container starts no program outside of itself; with Intel RDT or
// network devices; device nodes of disks; two devices of one name; a name that no file has; members that the
// specification does not know, and everything above the caps.
package cdi
