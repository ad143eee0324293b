// SPDX-License-Identifier: Apache-2.0

// Package measure computes, from the artifacts that a guest is launched with, what
// the hardware will report about it: the launch digest of AMD SEV-SNP under QEMU and
// OVMF (AMD 56860, SNP_LAUNCH_UPDATE; OVMF's footer table and SNP metadata).
//
// Firmware, kernel and initrd are bytes from outside. Refused by name are firmware
// without SNP metadata, a kernel for firmware that has no page for kernel hashes
// (the host could exchange such a kernel unseen), and more processors than one on
// firmware without the reset address of the others. Nothing is guessed: a CPU type
// that is not known by name is given by its signature.
package measure
