// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	layoutPrefix   = "oci:"
	registryPrefix = "docker://"
)

// Location is where an image is or shall be.
type Location struct {
	// Dir is the directory of an OCI layout; empty for a registry.
	Dir string
	// Tag is the image's name in the layout; may be empty.
	Tag string
	// Digest names the image in the layout instead of Tag; may be zero.
	Digest v1.Hash
	// Ref names the image in a registry; nil for a layout.
	Ref name.Reference
}

// String is the form that Parse reads.
func (l Location) String() string {
	switch {
	case l.Ref != nil:
		return registryPrefix + l.Ref.String()
	case l.Digest != (v1.Hash{}):
		return layoutPrefix + l.Dir + "@" + l.Digest.String()
	case l.Tag != "":
		return layoutPrefix + l.Dir + ":" + l.Tag
	default:
		return layoutPrefix + l.Dir
	}
}

// Parse reads "oci:DIR", "oci:DIR:TAG", "oci:DIR@sha256:HEX" or
// "docker://REFERENCE". A reference without prefix is taken as one of a
// registry if it names the registry.
func (c *Client) Parse(text string) (Location, error) {
	if rest, ok := strings.CutPrefix(text, layoutPrefix); ok {
		return parseLayout(text, rest)
	}
	reference, ok := strings.CutPrefix(text, registryPrefix)
	if !ok {
		// A bare word could as well be another tool's transport
		// ("oci-archive:f") or a name at some default registry.
		host, _, slash := strings.Cut(text, "/")
		if !slash || !strings.ContainsAny(host, ".:") && host != "localhost" || strings.HasSuffix(host, ":") {
			return Location{}, fmt.Errorf("image %q: want oci:DIR[:TAG], docker://REFERENCE or REGISTRY/REFERENCE", text)
		}
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return Location{}, fmt.Errorf("image %q: %w", text, err)
	}
	if c.transport.insecure[ref.Context().RegistryStr()] {
		if ref, err = name.ParseReference(reference, name.Insecure); err != nil {
			return Location{}, fmt.Errorf("image %q: %w", text, err)
		}
	}
	return Location{Ref: ref}, nil
}

func parseLayout(text, rest string) (Location, error) {
	l := Location{Dir: rest}
	if dir, digest, ok := strings.Cut(rest, "@sha256:"); ok {
		hash, err := v1.NewHash("sha256:" + digest)
		if err != nil {
			return Location{}, fmt.Errorf("image %q: %w", text, err)
		}
		l.Dir, l.Digest = dir, hash
	} else if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		l.Dir, l.Tag = rest[:i], rest[i+1:]
		if l.Tag == "" {
			return Location{}, fmt.Errorf("image %q: the tag is empty", text)
		}
	}
	if l.Dir == "" {
		return Location{}, fmt.Errorf("image %q: the directory is empty", text)
	}
	l.Dir = filepath.Clean(l.Dir)
	return l, nil
}
