// SPDX-License-Identifier: Apache-2.0

// Package kernel gets Debian's cloud kernel for a guest: it downloads the package with apt, takes the ELF
// image out of the bzImage (Linux x86 boot protocol 2.08 and later), so that QEMU boots it without its slow
// decompressor, and picks modules in loading order by what they say about themselves. Everything is kept under a
// cache directory and made once for each version of the package.
//
// It refuses a package that apt does not know: the name of the version comes from Debian's meta package.
package kernel
