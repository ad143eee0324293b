// SPDX-License-Identifier: Apache-2.0

// Package trust decides whether a containers policy.json admits an image.
//
// It implements containers-policy.json(5) for the docker transport with the requirements insecureAcceptAnything,
// reject, signedBy and sigstoreSigned: the simple signing payload of containers-signature(5) in an OpenPGP message, or
// as cosign 2 signs it with an RSA, ECDSA or Ed25519 key, and the in-toto statement of a sigstore bundle 0.3, as cosign 3
// signs it. The signer is a key of the policy or has a certificate (fulcio, pki); rekorPublicKey* asks for an entry of a
// Rekor log about this payload, signature and signer, under the log's signed entry timestamp.
//
// A certificate is judged at the time of its log entry, never by the clock, which is the host's: fulcio and pki without
// rekorPublicKey* are not loaded. An inclusion proof is not over that time and does not stand in for the timestamp.
//
// cosign 3 signs a digest and no name. No rule of containers-policy.json(5) says that this is enough; the signedIdentity
// {"type":"matchDigestOnly"}, which is this package's own, does.
//
// A policy that would be enforced only in part is not loaded: an unknown, repeated or differently cased member, an
// unknown requirement, an empty list of requirements, and a scope that no image can have are errors that name the
// member. There is no policy that accepts by being absent.
//
// The package does no I/O. Keys that a policy names by path are read once, through a KeyReader; signatures come from
// a SignatureSource. Check must be asked about the name as requested, never a mirror's, and on every use of an image,
// a cached one included; Hash tells whether an answer was given under this policy.
//
// Files: policy.go (the document), requirement.go (one requirement and its parsing), sigstore.go (sigstoreSigned), identity.go (signedIdentity),
// scope.go (names to scopes), key.go and gpg.go (public keys), payload.go (what is signed), attached.go and bundle.go (the forms of
// a signature), authority.go (certificates), rekor.go (log entries), check.go (the decision), denial.go
// (the refusal).
package trust
