// SPDX-License-Identifier: Apache-2.0

// Package keyprovider wraps and unwraps the keys of encrypted image layers and
// serves the key-provider protocol of ocicrypt.
//
// An encrypted layer carries its private options (symmetric key, nonce, digest:
// ocicrypt's PrivateLayerBlockCipherOptions, here plbco) inside an annotation
// packet, wrapped by a key-encryption key (KEK) of 32 bytes that a key broker
// releases under the packet's key id. The packet formats are guest-components'
// AnnotationPacket v1 and v2 (0.1.0) as its key provider writes and its hub
// reads them; the layer annotation is
// "org.opencontainers.image.enc.keys.provider.attestation-agent". The protocol
// is the one of ocicrypt's docs/keyprovider.md: one gRPC call, one JSON document
// each way.
//
// Refused: packets of another provider than "kbs", unknown or repeated members,
// key ids that are not plain resource URIs, KEKs that are not 32 bytes, and
// A256CTR unless the caller allows it by name: that mode has no authentication,
// no known tool writes it, and accepting it silently would be a fallback to
// something weaker. A guest serves UnWrapKey only, an owner's tool WrapKey only.
//
// A packet's key id is not covered by its authentication tag; swapping it
// leads to another KEK and so to a failed tag.
//
// It also opens sealed secrets (guest-components' docs/SEALED_SECRET.md): a compact
// JWS behind "sealed.", always verified by a P-256 key that the KBS holds or measured
// configuration names. It stands for a
// secret of the KBS, for one of another store, or holds one under a data key that a KMS
// wrapped; the folders vault and aws have the clients of those that are served. Refused
// there: verification keys in files that nothing measures, unsigned secrets, envelopes of A256CTR.
//
// Files: keyid.go (key ids), packet.go (annotation packets), plbco.go (layer
// options), wrap.go and unwrap.go (cryptography), cache.go (KEKs kept as long as
// one token), sealed.go (sealed secrets),
// sealedjws.go (their signature), seal.go (writing them), protocol.go (JSON in and out), params.go (parameters of a wrap
// call), service.go (the two gRPC services), listen.go (sockets), serve.go (the
// server around them).
package keyprovider
