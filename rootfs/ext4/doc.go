// SPDX-License-Identifier: Apache-2.0

// Package ext4 writes an ext4 file system that is never written again: the root of a
// guest below dm-verity, for runtimes whose configuration says rootfs_type "ext4".
//
// It lays out what the kernel's Documentation/filesystems/ext4 describes and needs little
// of it: blocks of 4096 bytes, extents, no journal, no checksums (dm-verity has them), no
// backups of the superblock, and, with flex_bg, all metadata behind all data, so that a
// file lies in one piece. Everything belongs to root, has the time 0 and a place that the
// order of the calls decides: the same calls give the same bytes.
//
// Refused are files of more than 512 MiB, images of more than 16 GiB, hard links, and
// names that are not new, absolute and clean.
package ext4
