// SPDX-License-Identifier: Apache-2.0

// Package cpio writes archives in the "newc" form that the kernel unpacks as an initial RAM file system (kernel
// Documentation/driver-api/early-userspace/buffer-format.rst). The same entries in the same order give the same
// bytes: no time, no owner and no inode number comes from the machine that writes.
package cpio
