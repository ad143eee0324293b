// SPDX-License-Identifier: Apache-2.0

// Package measure computes, from the artifacts that a guest is launched with, what
// the hardware will report about it: the launch digest of AMD SEV-SNP under QEMU and
// OVMF (AMD 56860, SNP_LAUNCH_UPDATE; OVMF's footer table and SNP metadata) and under
// libkrun (the parts of libkrunfw-sev, in the order of its krunfw_measurement), MRTD of
// Intel TDX (TDX Module Base Architecture Specification, TDH.MEM.PAGE.ADD and
// TDH.MR.EXTEND; TDVF metadata), and PCR 4, 8, 9, 11 and 12 of a TPM, or RTMR 1 and 2,
// after OVMF has booted a unified kernel image, or a kernel that QEMU loads (TCG PC
// Client Platform Firmware Profile; UEFI 2.10, 38.4; Microsoft PE and Authenticode;
// systemd-stub 252; Linux x86 boot protocol). PCR 0 comes from the log of a boot,
// held against the volumes in the firmware's file (Platform Initialization 1.7, volume
// 3).
//
// Firmware, kernel, initrd and UKI are bytes from outside. Refused by name are
// firmware without SNP or TDVF metadata, a kernel for firmware that has no page for kernel
// hashes (the host could exchange such a kernel unseen), more processors than one on
// firmware without the reset address of the others, PE files that implementations
// hash differently, and UKIs of stubs or with sections whose measuring is not proved.
// A libkrunfw whose code does not say where the kernel goes is refused as well.
// Nothing is guessed: a CPU type that is not known by name is given by its signature.
package measure
