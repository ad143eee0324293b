// SPDX-License-Identifier: Apache-2.0

// Package cwdisk writes confidential-workload disks: an encrypted root file system with the image's config inside and
// a trailer in plain behind it.
//
// Two forms. MKCW is the one of `buildah mkcw` (container-images' confidential workloads, libkrun): a LUKS1 header,
// ext4 in AES-XTS over sectors of 512 bytes, and the trailer as the last bytes of a multiple of 4096. It has secrecy
// and no integrity: whoever holds the disk can change its blocks unnoticed. Verity is casemate's: a LUKS2 header with
// casemate's token, and in the encryption ext4 with a dm-verity tree behind it. Its pin goes into initdata and with
// that into the registration, so that such a guest runs these bytes or none.
//
// MKCW's ext4 is mke2fs's, from a directory: mkfs.ext4 and debugfs (e2fsprogs) must be there. Verity's is that of
// rootfs/ext4, with no room left, and the same bytes for the same files: what is in the directory, but sockets, with its
// owners, modes, times to the second, links and capabilities.
//
// It refuses an output that is there already, a config that is no JSON object with a config member, and a directory
// that has a file in the config's place when another is given; below a hash tree also other extended attributes than
// security.capability (and security.selinux, which is the host's and left out).
//
// Files: filesystem.go and readonly.go the ext4; disk.go header, encryption, trailer.
package cwdisk
