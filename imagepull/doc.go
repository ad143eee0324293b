// SPDX-License-Identifier: Apache-2.0

// Package imagepull brings a container image from a registry, or an OCI layout
// directory, into a tree that a container can run on, with every byte verified
// and encrypted layers opened on the way.
//
// It implements the pulling side of the OCI distribution-spec, the OCI image-spec
// 1.1 and Docker's image manifest 2.2, ocicrypt's layer encryption
// (AES_256_CTR_HMAC_SHA256 with key-provider packets), cosign's signature tags,
// RFC 1951 and RFC 1952, and the image to runtime conversion of the OCI
// image-spec. Registry, network and layout are the adversary.
//
// The order of a pull is fixed: manifest, platform, policy on the requested name,
// config, keys, space, layers. A layer is one stream with all its checks
// (verifiedLayer); it gets a name in the store only after each of them has spoken
// at the end of that stream. What can be found is listed in fault.go.
//
// Refused, without any way to allow it: schema 1 manifests, artifacts, documents
// over 4 MiB or with repeated or differently cased names, digests other than
// SHA-256, SHA-384 and SHA-512, public cipher options, bytes behind the end of a
// gzip, zstd or tar stream, zstd windows over 8 MiB, redirects to other schemes or
// into this machine. Refused unless the configuration names it: plain HTTP, and
// any image without a policy that admits it.
//
// Files, in the order in which a pull meets them:
//
//	puller.go        Config, Puller: joining of equal pulls, what is kept between them
//	pull.go          the steps of one pull, its layers in parallel
//	reference.go     registry and layout references
//	source.go        what documents and blobs come from: registry.go, layout.go
//	transport.go     the way onto the network and what may go over it
//	auth.go          auth.json; certs.go: certificates of single registries
//	retry.go         which errors are tried again, and when
//	resolve.go       reference to platform manifest and config
//	document.go      manifest and index; mediatype.go, config.go, platform.go, digest.go
//	signature.go     cosign tags, for package trust
//	encryption.go    annotations to layer key
//	space.go         free space
//	store.go         layers on disk, known from memory
//	form.go          how they are kept: directories, or erofs images, which
//	                 erofs.go mounts, with loop.go where it takes a device;
//	                 sealed.go: images that the disk below cannot change
//	blob.go          one blob over as many connections as it takes
//	layer.go         verifiedLayer: the stages of a layer; stream.go joins them
//	decompress.go    zstd, and gunzip.go, inflate.go, huffman.go
//	image.go         the result
//	resolved.go      an image whose layers come from elsewhere
//	overlay.go       mounting it; merge.go completes the tree
//	bundle.go        OCI runtime bundle; spec.go, user.go
//	fault.go         what can go wrong
package imagepull
