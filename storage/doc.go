// SPDX-License-Identifier: Apache-2.0

// Package storage makes the block devices that a confidential guest keeps data on: scratch, whose key lives and dies
// with the mapping, and volumes, which another boot opens again. It joins the headers of storage/luks with the tables of
// storage/devmapper, starts no program and parses no program's output.
//
// The disk below belongs to the host: every block is encrypted and, unless a volume's measured configuration says
// otherwise, carries a tag that covers its content and its place. A block that was changed, moved or never written
// reads as an I/O error. What is not noticed is a block put back to an older state; a whole disk is, for a volume whose
// counter the relying party keeps.
//
//   - scratch.go: OpenScratch, a random key, no header and no key derivation; formatting it is a call of its own
//   - volume.go, create.go: Volumes.Open and Volumes.Create, of which neither ever becomes the other
//   - generation.go, replay.go: the generations on a disk, and how disk and counter go from one to the next
//   - sized.go: a file system of a given size on another
//   - verityroot.go: a volume under a hash tree as the root of a container
//   - key.go: keys from files of one directory; other sources are joined by the caller
//   - stack.go: the mappings of one device, made from below and removed from above
//   - mount.go, disk.go: scratch with a file system, mounted; a disk found by its serial number
//   - superblock.go: what dm-integrity keeps at its start, read as hostile input
//   - format.go: what may write to a new device, and how
//   - securemount.go: the block-device options of confidential-data-hub's SecureMount (guest-components 0.21),
//     refused where they ask for less than the above
//   - securemounts.go: what those requests ask for, carried out and undone in order
//
// It refuses: a journal-less persistent volume, a volume without casemate's own token at creation, a target that is
// not blank, integrity superblocks with flags that let blocks pass unchecked, keys from files that others may read,
// and every option whose meaning it does not know.
package storage
