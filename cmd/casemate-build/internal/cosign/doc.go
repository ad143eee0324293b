// SPDX-License-Identifier: Apache-2.0

// Package cosign makes key signatures that cosign, containers/image and guests
// verify: a simple-signing payload (containers/image,
// docs/containers-signature.5.md) signed with ECDSA P-256 over SHA-256, kept as
// a layer of an image tagged sha256-HEX.sig beside the signed one (cosign,
// specs/SIGNATURE_SPEC.md). There is no transparency log: verifiers trust the
// key.
//
// Private keys are PKCS #8 in PEM, plain or in cosign's password-protected
// form. Refused: other key types and curves, and password protection whose cost
// is out of bounds.
package cosign
