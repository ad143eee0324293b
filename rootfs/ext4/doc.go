// SPDX-License-Identifier: Apache-2.0

// Package ext4 writes an ext4 file system that is never written again: the root of a
// guest below dm-verity, for runtimes whose configuration says rootfs_type "ext4".
//
// It lays out what the kernel's Documentation/filesystems/ext4 describes and needs little
// of it: blocks of 4096 bytes, extents, no journal, no checksums (dm-verity has them), no
// backups of the superblock, and, with flex_bg, all metadata behind all data, so that a
// file lies in one piece. Everything belongs to root and has the time 0 where Set says
// nothing else, and a place that the order of the calls decides: the same calls give the
// same bytes.
//
// Refused are images of more than 16 GiB or 262,144 files, extended attributes but
// security.capability, and names that are not new, absolute and clean.
//
// Files: writer.go and attributes.go what is added; inode.go, directory.go, layout.go and
// superblock.go what is written of it.
package ext4
