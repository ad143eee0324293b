// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// encryptedSuffix marks the media type of an encrypted layer.
	encryptedSuffix = "+encrypted"
	// annotationPrefix starts every annotation of an encrypted layer.
	annotationPrefix = "org.opencontainers.image.enc."
	// pubOptsAnnotation carries cipher and MAC of the layer.
	pubOptsAnnotation = annotationPrefix + "pubopts"

	ociRestrictedZstd types.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
	dockerLayerZstd   types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

var (
	errEncrypted = errors.New("the layer is encrypted already")
	errMediaType = errors.New("the layer's media type has no encrypted form")
)

// ociLayerType returns the OCI name of a layer's media type (OCI image-spec,
// layer.md) and whether it is known.
func ociLayerType(mt types.MediaType) (types.MediaType, bool) {
	switch mt {
	case types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd,
		types.OCIUncompressedRestrictedLayer, types.OCIRestrictedLayer, ociRestrictedZstd:
		return mt, true
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer, true
	case types.DockerLayer:
		return types.OCILayer, true
	case dockerLayerZstd:
		return types.OCILayerZStd, true
	case types.DockerForeignLayer:
		return types.OCIRestrictedLayer, true
	default:
		return "", false
	}
}

// checkEncryptable says why a layer cannot be encrypted.
func checkEncryptable(desc v1.Descriptor) error {
	if strings.HasSuffix(string(desc.MediaType), encryptedSuffix) {
		return errEncrypted
	}
	for name := range desc.Annotations {
		if strings.HasPrefix(name, annotationPrefix) {
			return fmt.Errorf("%w: annotation %s", errEncrypted, name)
		}
	}
	if _, ok := ociLayerType(desc.MediaType); !ok {
		return fmt.Errorf("%w: %q", errMediaType, desc.MediaType)
	}
	return nil
}
