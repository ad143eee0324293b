// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"errors"
	"fmt"
	"strings"
)

const (
	keyIDScheme = "kbs://"

	// MaxKeyIDBytes bounds a key id. A key broker takes three path segments;
	// names longer than a file name are nobody's.
	MaxKeyIDBytes = 512

	// resourceSegments is what a resource of a key broker is named by:
	// repository, type, tag.
	resourceSegments = 3
)

// CheckKeyID says whether keyID may be written into a packet: the full form
// "kbs:///REPOSITORY/TYPE/TAG" and nothing else. Guests read other forms as
// other things: without the scheme the key is not found, and a host in the URI
// is ignored, which nobody who wrote one would expect.
func CheckKeyID(keyID string) error {
	canonical, err := parseKeyID(keyID)
	if err != nil {
		return err
	}
	if canonical != keyID {
		return fmt.Errorf("key id %q names a host, which guests ignore: want %s", keyID, canonical)
	}
	if n := strings.Count(keyID, "/") - len("//"); n != resourceSegments {
		return fmt.Errorf("key id %q has %d path segments, want %d: kbs:///REPOSITORY/TYPE/TAG", keyID, n, resourceSegments)
	}
	return nil
}

// parseKeyID reads the resource URI of a packet and returns it without its
// host, which the KBS resource URI scheme tells readers to ignore. Only the
// default plugin is accepted: a KEK is a resource. Escapes, queries, fragments
// and dot segments are refused, so one resource has one id.
func parseKeyID(keyID string) (string, error) {
	if len(keyID) > MaxKeyIDBytes {
		return "", fmt.Errorf("key id of %d bytes, want at most %d", len(keyID), MaxKeyIDBytes)
	}
	rest, ok := strings.CutPrefix(keyID, keyIDScheme)
	if !ok {
		return "", fmt.Errorf("key id %q does not start with %q", keyID, keyIDScheme+"/")
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok {
		return "", fmt.Errorf("key id %q has no path", keyID)
	}
	if strings.Trim(host, hostCharacters) != "" {
		return "", fmt.Errorf("key id %q has a malformed host", keyID)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if err := checkSegment(segment); err != nil {
			return "", fmt.Errorf("key id %q: %w", keyID, err)
		}
	}
	return keyIDScheme + "/" + path, nil
}

const (
	letters        = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits         = "0123456789"
	hostCharacters = letters + digits + ".-:[]"
)

// checkSegment applies Trustee's rule for one segment of a resource path:
// [A-Za-z0-9_-]+[A-Za-z0-9_.-]*, so no segment starts with a dot.
func checkSegment(segment string) error {
	if segment == "" {
		return errors.New("empty path segment")
	}
	if segment[0] == '.' {
		return fmt.Errorf("path segment %q starts with a dot", segment)
	}
	for _, c := range []byte(segment) {
		if strings.IndexByte(letters+digits+"_.-", c) < 0 {
			return fmt.Errorf("path segment %q holds the byte %#02x", segment, c)
		}
	}
	return nil
}
