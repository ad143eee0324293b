// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// defaultPlatform is the machine this program was built for.
func defaultPlatform() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

func platformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// variantLevel orders the variants of one architecture: a machine runs code of
// its own level and below. An absent variant is the architecture's base, v8 for
// arm64, v7 for arm and v1 for amd64 (OCI image-index.md, Platform Variants).
func variantLevel(architecture, variant string) (int, bool) {
	if variant == "" {
		switch architecture {
		case "arm64":
			return 80, true
		case "arm":
			return 70, true
		}
		return 10, true
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	m, err := strconv.Atoi(major)
	if err != nil || m < 0 || m > 99 {
		return 0, false
	}
	n := 0
	if minor != "" {
		if n, err = strconv.Atoi(minor); err != nil || n < 0 || n > 9 {
			return 0, false
		}
	}
	return 10*m + n, true
}

// suits says how well an image for got runs on want: below zero not at all,
// otherwise higher is better.
func suits(got, want ocispec.Platform) int {
	if got.OS != want.OS || got.Architecture != want.Architecture {
		return -1
	}
	have, ok := variantLevel(got.Architecture, got.Variant)
	limit, ok2 := variantLevel(want.Architecture, want.Variant)
	if !ok || !ok2 || have > limit {
		return -1
	}
	return have
}

// choose returns the entries of an index that are worth opening: the image with
// the best variant; when there is none, the indexes below that do not name
// another platform; and when there are none either, an only image that names no
// platform, whose config is checked like any other.
func choose(index []descriptor, want ocispec.Platform) ([]descriptor, error) {
	best, bestFit := -1, -1
	var nested, unnamed []descriptor
	var seen []string
	for i, d := range index {
		switch d.mediaType {
		case typeOCIManifest, typeDockerManifest:
			if d.platform == nil {
				unnamed = append(unnamed, d)
				continue
			}
			seen = append(seen, platformString(*d.platform))
			if fit := suits(*d.platform, want); fit > bestFit {
				best, bestFit = i, fit
			}
		case typeOCIIndex, typeDockerList:
			if d.platform == nil || suits(*d.platform, want) >= 0 {
				nested = append(nested, d)
			}
		}
	}
	switch {
	case best >= 0:
		return index[best : best+1], nil
	case len(nested) > 0:
		return nested, nil
	case len(unnamed) == 1:
		return unnamed, nil
	}
	return nil, fmt.Errorf("%w: want %s, got %.300q", ErrPlatform, platformString(want), seen)
}
