// SPDX-License-Identifier: Apache-2.0

package image

import "github.com/google/go-containerregistry/pkg/v1/types"

// EncryptedSuffix marks the media type of an encrypted layer.
const EncryptedSuffix = "+encrypted"

// Media types that go-containerregistry has no names for.
const (
	OCIRestrictedLayerZstd types.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
	DockerLayerZstd        types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// OCILayerType returns the OCI name of a layer's media type (OCI image-spec,
// layer.md) and whether it is known.
func OCILayerType(mt types.MediaType) (types.MediaType, bool) {
	switch mt {
	case types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd,
		types.OCIUncompressedRestrictedLayer, types.OCIRestrictedLayer, OCIRestrictedLayerZstd:
		return mt, true
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer, true
	case types.DockerLayer:
		return types.OCILayer, true
	case DockerLayerZstd:
		return types.OCILayerZStd, true
	case types.DockerForeignLayer:
		return types.OCIRestrictedLayer, true
	default:
		return "", false
	}
}
