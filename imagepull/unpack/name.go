// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"fmt"
	"strings"
)

const (
	// maxPath is the kernel's PATH_MAX: no program in a container could name a longer one.
	maxPath = 4096
	// maxComponent is the kernel's NAME_MAX.
	maxComponent = 255

	whiteoutPrefix = ".wh."         // OCI image-spec layer.md, "Whiteouts"
	opaqueWhiteout = ".wh..wh..opq" // "Opaque Whiteout"
	aufsPrefix     = ".wh..wh."     // other names that aufs keeps for itself
)

// clean makes name relative: no leading or trailing slash, no empty or "." component. The root is "". A ".."
// component is refused: no image tool writes one.
func clean(name string, depth int) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("%w: path of %d bytes, at most %d", ErrLimit, len(name), maxPath)
	}
	for {
		if rest, ok := strings.CutPrefix(name, "/"); ok {
			name = rest
		} else if rest, ok := strings.CutPrefix(name, "./"); ok {
			name = rest
		} else {
			break
		}
	}
	name = strings.TrimRight(name, "/")
	rebuild, count := false, 0
	for rest, more := name, name != ""; more; count++ {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		switch {
		case part == "..":
			return "", fmt.Errorf("%w: '..' component", ErrEscape)
		case part == "" || part == ".":
			rebuild = true
			count--
		case len(part) > maxComponent:
			return "", fmt.Errorf("%w: path component of %d bytes, at most %d", ErrLimit, len(part), maxComponent)
		}
	}
	if count > depth+1 {
		return "", fmt.Errorf("%w: %d path components, at most %d", ErrLimit, count, depth+1)
	}
	if !rebuild {
		return name, nil
	}
	parts := make([]string, 0, count)
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// split cuts a clean name into directory and last component.
func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

// role is what a name means to the layer format.
type role int

const (
	rolePlain    role = iota
	roleWhiteout      // hides the name behind the prefix
	roleOpaque        // hides all that its directory has in lower layers
	roleSkipped       // aufs bookkeeping
)

// roleOf tells the role of a clean name and, for a whiteout, the name that it hides.
func roleOf(name string) (role, string, error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return rolePlain, "", nil
	}
	dir, base := split(name)
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, aufsPrefix) {
			return roleSkipped, "", nil
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return 0, "", fmt.Errorf("%w: entry beneath a whiteout", ErrFormat)
		}
	}
	switch {
	case base == opaqueWhiteout:
		return roleOpaque, "", nil
	case strings.HasPrefix(base, aufsPrefix):
		return roleSkipped, "", nil
	case strings.HasPrefix(base, whiteoutPrefix):
		hidden := base[len(whiteoutPrefix):]
		if hidden == "" || hidden == "." || hidden == ".." {
			return 0, "", fmt.Errorf("%w: whiteout of %q", ErrEscape, hidden)
		}
		return roleWhiteout, hidden, nil
	}
	return rolePlain, "", nil
}
