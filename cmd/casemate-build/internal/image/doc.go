// SPDX-License-Identifier: Apache-2.0

// Package image finds, reads and writes the images that casemate-build works on:
// OCI layouts (OCI image-spec, image-layout.md) and registries (OCI
// distribution-spec), with go-containerregistry as the transport.
//
// What is read is not taken on trust: manifests and indexes are parsed by exact
// case and without repeated names, their bytes must have the digest they were
// found by, and Verify does the same for blobs. Refused: other transports,
// plain HTTP to registries that were not named insecure (go-containerregistry
// alone would use it for private addresses and *.local names), layouts in which
// it is not clear which image is meant.
//
// Files: location.go (what the user writes), client.go (access to registries),
// transport.go (no plain HTTP), content.go (an image or index that was found),
// open.go and write.go, layout.go (index.json), manifest.go (strict parsers),
// verify.go (blobs), media.go (names of layers), built.go (a new image as
// go-containerregistry wants it).
package image
