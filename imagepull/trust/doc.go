// SPDX-License-Identifier: Apache-2.0

// Package trust decides whether a containers policy.json admits an image.
//
// It implements containers-policy.json(5) for the docker transport with the requirements insecureAcceptAnything,
// reject, signedBy and sigstoreSigned with keys: the simple signing payload of containers-signature(5) in an OpenPGP
// message, or as cosign signs it with an RSA, ECDSA or Ed25519 key.
//
// A policy that would be enforced only in part is not loaded: an unknown, repeated or differently cased member, an
// unknown requirement, an empty list of requirements, a scope that no image can have, and sigstoreSigned
// with fulcio, pki or rekor members are errors that name the member. There is no policy that accepts by being absent.
//
// The package does no I/O. Keys that a policy names by path are read once, through a KeyReader; signatures come from
// a SignatureSource. Check must be asked about the name as requested, never a mirror's, and on every use of an image,
// a cached one included; Hash tells whether an answer was given under this policy.
//
// Files: policy.go (the document), requirement.go (one requirement and its parsing), identity.go (signedIdentity),
// scope.go (names to scopes), key.go and gpg.go (public keys), payload.go (what is signed), check.go (the decision), denial.go
// (the refusal).
package trust
