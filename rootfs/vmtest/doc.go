// SPDX-License-Identifier: Apache-2.0

// Package vmtest boots casemate as the first process of a virtual machine, under QEMU without hardware help, and
// lets a test talk to it: over the guest's real AF_VSOCK sockets, on its console, and by running test programs
// inside. One boot takes two to three seconds and serves many checks.
//
// The kernel is Debian's (package kernel), the initial RAM file system is written by package cpio, vsock is carried
// by package vsockdev, programs run through package remote. Every machine has a hard time limit. What the machine
// under the test lacks, QEMU or the kernel package, is an error that names `make setup`. A machine can have a TPM
// (swtpm) and boot a unified kernel image by OVMF, which takes ten seconds more.
//
// The checks themselves are behind the build tag vm: the guest as such in vm_test.go, a pod's life in pod_test.go and
// podsteps_test.go, with the guest's files and an image from guestfiles_test.go
// and a registry from registry_test.go; the measured boot in root_test.go. What needs keybroker and the owner's
// programs beside the guest is in cmd/internal/chain.
package vmtest
