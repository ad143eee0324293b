// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// refName is the annotation that names an image in a layout (OCI image-spec,
// annotations.md).
const refName = "org.opencontainers.image.ref.name"

// signatureTag is how cosign names the signatures of an image. They are no
// images to choose from.
var signatureTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}\.sig$`)

// readLayout returns the index.json of the layout in dir. It is
// fs.ErrNotExist if there is no layout.
func readLayout(dir string) (*v1.IndexManifest, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no OCI layout: %w", dir, err)
		}
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifestBytes+1))
	if err != nil {
		return nil, err
	}
	index, err := ParseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return index, nil
}

// choose finds the one descriptor that the location means.
func choose(index *v1.IndexManifest, l Location) (v1.Descriptor, error) {
	var found []v1.Descriptor
	var names []string
	for _, d := range index.Manifests {
		tag := d.Annotations[refName]
		switch {
		case l.Digest != (v1.Hash{}):
			if d.Digest == l.Digest {
				return d, nil
			}
		case l.Tag != "":
			if tag == l.Tag {
				found = append(found, d)
			}
		case !signatureTag.MatchString(tag):
			found = append(found, d)
		}
		if tag != "" && !signatureTag.MatchString(tag) {
			names = append(names, tag)
		}
	}
	slices.Sort(names)
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return v1.Descriptor{}, fmt.Errorf("%s: %w; the layout has %s", l, errNoImage, describe(names))
	default:
		return v1.Descriptor{}, fmt.Errorf("%s: %d images, say which with oci:DIR:TAG; the layout has %s", l, len(found), describe(names))
	}
}

// errNoImage says that a layout or repository does not have the image.
var errNoImage = errors.New("no such image")

func describe(names []string) string {
	if len(names) == 0 {
		return "no tags"
	}
	return "the tags " + strings.Join(names, ", ")
}
