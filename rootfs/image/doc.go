// SPDX-License-Identifier: Apache-2.0

// Package image builds the measured guest: casemate, the kernel modules that it
// needs and a few files, as an initial RAM file system, as a read-only root with
// its dm-verity tree, and as the forms in which kata's runtime and a unified
// kernel image take them; and the program alone as an extension of kata's own guest.
//
// A [Recipe] is data: it says which directories, files and modules there are. Its
// product is a [Tree], from which every form is written, so that all hold the same.
// The same tree gives the same bytes: no time, owner, host path or random number of
// the building machine goes in, and none of the builders needs root.
//
// Refused: set-uid, set-gid and sticky modes but /tmp's, files and directories that
// others may write, shells but in debug guests, which are marked, scripts, names that are no clean absolute paths, two
// entries of one name, entries below a file or a link.
//
// Specifications: kata-containers 4.1, tools/osbuilder (root file system and verity
// parameters); kernel Documentation/filesystems/erofs.rst and
// Documentation/driver-api/early-userspace/buffer-format.rst.
package image
