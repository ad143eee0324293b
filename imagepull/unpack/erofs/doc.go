// SPDX-License-Identifier: Apache-2.0

// Package erofs writes the metadata of an EROFS image behind data that is already in the file: one file then holds a
// layer's archive, byte for byte, and a filesystem whose files lie in it.
//
//	0        nothing
//	1024     superblock, 128 bytes, in a block of its own
//	4096     the archive (HeadBytes on, put there by the caller)
//	...      content of sparse files, in chunks
//	...      directories and link targets that do not fit beside their inodes
//	...      inodes, each with its attributes and what is short of content
//
// It implements the on-disk format of Linux's fs/erofs (Documentation/filesystems/erofs.rst, erofs_fs.h) with blocks
// of 512 bytes, which is how archives align content: extended inodes; flat, inline and chunk-based data; inline
// extended attributes. It writes nothing that a kernel older than 6.4 lacks, and reads no image: parsing one is the
// kernel's. All integers are little endian.
//
// Refused: content behind 2 TiB, attributes of more than 65535 bytes or, together, more than MaxXattrBytes, names of
// attributes outside the namespaces that the format has (Namespace).
//
// Files: image.go (Write: where everything goes), inode.go, dir.go, xattr.go, sparse.go, superblock.go.
package erofs
