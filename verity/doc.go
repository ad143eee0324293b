// SPDX-License-Identifier: Apache-2.0

// Package verity makes, reads and checks dm-verity hash trees: pure bytes, no
// device and no mount. It implements the kernel's format
// (Documentation/admin-guide/device-mapper/verity.rst) and cryptsetup's
// superblock, version 1, and writes both byte for byte as veritysetup does.
//
// What proves a device is the whole [Pin]: root hash, algorithm, salt, both block
// sizes, number of blocks, hash type and offset. A superblock lies on the device
// and is hostile input; it may repeat a pin and never completes one.
//
// Refused: SHA-1 and other weak algorithms, block sizes that no kernel mounts
// (512 to 4096 bytes are taken). Parity for forward error correction is neither made nor
// used here: [Params.FEC] says what a kernel needs to know of it. Checking here is a
// diagnostic: what a guest reads is checked by the kernel, block by block, when it
// reads it.
//
// Files: params.go (the tuple), superblock.go, pin.go (a pin as text, kata's form),
// layout.go (where the levels lie), tree.go (building), sealed.go (building while the
// data is written), check.go (checking), find.go and onedevice.go (which device a pin
// means), fec.go (where parity lies).
package verity
