// SPDX-License-Identifier: Apache-2.0

// Package ext4 makes an empty ext4 file system on a device, as mkfs.ext4 does, without any program and without
// reading the device. It follows the kernel's Documentation/filesystems/ext4 (super, group_descr, bitmaps, inodes,
// directory, journal, checksums); the kernel's driver and e2fsck are what it is tested against.
//
// The result is always: blocks of 4096 bytes, 64bit, extents, flex_bg (16 groups), sparse_super, metadata_csum,
// huge_file, dir_index, no resize_inode. The journal, the inodes' size and number and the reserved blocks are options.
// Its geometry is that of mke2fs with the same options, but for the journal's place and a cap of 128 MiB on its size.
// The same options give the same bytes.
//
// # Devices with integrity
//
// A sector of a dm-integrity or dm-crypt device that nothing has written yet cannot be read: its tag does not fit.
// So Format writes every block that the kernel or e2fsck may read before they write it: block 0 whole, all
// superblocks and group descriptors with their padding, all bitmaps, all inode tables, the directories, and the whole
// journal. Flags that would let the kernel skip blocks are never relied upon:
//   - inode tables are written with zeros although INODE_UNINIT is set: the kernel reads a table's block whenever the
//     inode bitmap is not cached or another inode of the block is in use (fs/ext4/inode.c, __ext4_get_inode_loc), and
//     its neighbours as read-ahead. The latter is so for the first two files of a block whenever they are made at the
//     same time, since both bits are set before either inode is looked up (ialloc.c, __ext4_new_inode): so a table cannot be left to be written
//     later, not even by the kernel's own lazy initialisation. INODE_ZEROED keeps the lazy initialisation thread away;
//   - BLOCK_UNINIT is never set, and the bitmaps of INODE_UNINIT groups are written with sound checksums;
//   - the journal is written with zeros, because recovery reads on until a block does not look like the log's.
//
// What the kernel reads on suspicion is outside of this: listing a directory makes the block device read ahead behind
// the directory's blocks (fs/ext4/dir.c, ext4_readdir), wherever those lie. If nothing was written there, such a read
// fails, is logged by the device, and is forgotten: no caller and no mount option sees it.
//
// Everything else is file data, directories, extent blocks and attributes, which the kernel writes whole before it
// reads them back. Bytes behind the last block of the file system stay unwritten and are never read.
//
// # What it refuses
//
// Sizes outside 16 MiB to 16 TiB, a missing UUID, time or root mode, and in ParseOptions every mkfs option outside a
// closed list, by name.
package ext4
