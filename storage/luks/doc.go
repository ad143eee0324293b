// SPDX-License-Identifier: Apache-2.0

// Package luks opens and creates LUKS headers: it turns the bytes of a header and a passphrase into the volume key
// and the place of the data, from which a device-mapper table can be made. It calls no kernel interface itself.
//
// It follows the LUKS2 On-Disk Format Specification 1.1 (sections 2 to 4) and the LUKS On-Disk Format Specification
// 1.2.3 for LUKS1, each narrowed to what casemate's volumes, cryptsetup's ordinary ones and the disks of
// `buildah mkcw` use.
//
// A header is written by the host, so:
//   - the opener names the whole [Layout] that it expects, and every difference is an error;
//   - ciphers are a closed list (no null cipher), as are hashes, KDFs, sizes and stripes; costs have caps;
//   - reencryption, requirements, backup segments, several segments or digests, slots that open something else,
//     unknown members, duplicate names and null are refused;
//   - both copies of a LUKS2 header must be sound and equal. A header whose update was cut off is refused until its
//     owner runs `cryptsetup repair`: choosing a copy would let the host choose;
//   - a volume that casemate made carries the token casemate-header, an HMAC by the volume key over the layout.
//     With [Expect].OwnHeader a header without it does not open. Other tokens are never acted upon.
//
// A new header keeps the last RecordsSize bytes before the data free of key slots, for whoever opens the volume.
//
// Open never writes. Create and CreateLUKS1 write only over zeros, and neither turns into the other.
package luks
