// SPDX-License-Identifier: Apache-2.0

// Package encrypt turns an image into one whose layers only the holder of a
// key-encryption key can read, by the ocicrypt scheme AES_256_CTR_HMAC_SHA256
// (containers/ocicrypt, docs and spec folders): a random key per layer, wrapped
// into the annotation of provider.attestation-agent. Configuration and DiffIDs
// stay as they are; Docker schema 2 manifests become OCI manifests, since only
// those have media types for encrypted layers.
//
// Refused: layers of an unknown media type, layers that are encrypted already,
// layer numbers that the image does not have, indexes that hold anything but
// images, and sources whose bytes are not the ones their digests promise. A
// layer passes through memory in pieces and waits in a temporary file.
//
// Files: encrypt.go (images and indexes), manifest.go (one image's new
// manifest), layer.go (one layer), media.go (what can be encrypted).
package encrypt
