// SPDX-License-Identifier: Apache-2.0

// Package vmtest boots casemate as the first process of a virtual machine, under QEMU without hardware help, and
// lets a test talk to it: over the guest's real AF_VSOCK sockets, on its console, and by running test programs
// inside. One boot takes two to three seconds and serves many checks.
//
// The kernel is Debian's (package kernel), the initial RAM file system is written by package cpio, vsock is carried
// by package vsockdev, programs run through package remote. Every machine has a hard time limit. What the machine
// under the test lacks, QEMU or the kernel package, is an error that names `make setup`.
//
// The checks themselves are in vm_test.go and, for the measured boot, root_test.go, behind the build tag vm.
package vmtest
