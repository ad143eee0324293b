// SPDX-License-Identifier: Apache-2.0

// Package chain holds the tests of the three programs together: a real registry, a
// real keybroker, and guests with a test chip. They run as root, since containers do.
//
// Behind the tag vm the guests are machines (package rootfs/vmtest): the released guest
// with a TPM, and one whose SEV-SNP reports come through the kernel's configfs from
// testdata/tsm, a kernel module for tests and the one part of this tree under GPL-2.0,
// and testdata/psp, which signs them.
package chain
