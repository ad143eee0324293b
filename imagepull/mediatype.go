// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"strings"
)

// compression is how the tar stream of a layer is packed.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// layerDescriptor is a manifest's entry for one layer.
type layerDescriptor struct {
	descriptor
	compression compression
	encrypted   bool
}

// encryptedSuffix marks an ocicrypt layer; what stands before it is the type of
// the layer inside.
const encryptedSuffix = "+encrypted"

// parseLayerType accepts the layer types of OCI image-spec 1.1 and of Docker's
// image manifest 2.2. Non-distributable layers differ in nothing but their name.
func parseLayerType(d descriptor) (layerDescriptor, error) {
	l := layerDescriptor{descriptor: d}
	inner, encrypted := strings.CutSuffix(d.mediaType, encryptedSuffix)
	l.encrypted = encrypted
	switch inner {
	case "application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar":
		l.compression = plain
	case "application/vnd.oci.image.layer.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		l.compression = gzipped
	case "application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.zstd":
		l.compression = zstandard
	default:
		return layerDescriptor{}, fmt.Errorf("%w: layer type %.100q", ErrUnsupported, d.mediaType)
	}
	return l, nil
}
