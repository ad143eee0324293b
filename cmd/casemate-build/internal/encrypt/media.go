// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

const (
	// annotationPrefix starts every annotation of an encrypted layer.
	annotationPrefix = "org.opencontainers.image.enc."
	// pubOptsAnnotation carries cipher and MAC of the layer.
	pubOptsAnnotation = annotationPrefix + "pubopts"
)

var (
	errEncrypted = errors.New("the layer is encrypted already")
	errMediaType = errors.New("the layer's media type has no encrypted form")
)

// checkEncryptable says why a layer cannot be encrypted.
func checkEncryptable(desc v1.Descriptor) error {
	if strings.HasSuffix(string(desc.MediaType), image.EncryptedSuffix) {
		return errEncrypted
	}
	for name := range desc.Annotations {
		if strings.HasPrefix(name, annotationPrefix) {
			return fmt.Errorf("%w: annotation %s", errEncrypted, name)
		}
	}
	if _, ok := image.OCILayerType(desc.MediaType); !ok {
		return fmt.Errorf("%w: %q", errMediaType, desc.MediaType)
	}
	return nil
}
