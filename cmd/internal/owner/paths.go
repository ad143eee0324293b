// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"regexp"
	"strings"
)

// Limits of names, so that each fits a log line and a database key.
const (
	// MaxIDSize is the length of a DNS label, which is what most ids are made from.
	MaxIDSize = 63
	// MaxPathSize bounds a resource path of three segments.
	MaxPathSize = 384
	// MaxDescriptionSize keeps a listing readable.
	MaxDescriptionSize = 1024
)

// idPattern has no upper case: two ids that differ in case only would be one to a
// reader and two to the keybroker.
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// segmentPattern is what Trustee's resource plugin takes. No segment can be "." or
// "..", hold a separator, or be empty.
var segmentPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)

// CheckID returns an error unless id can name a workload.
func CheckID(id string) error {
	if len(id) == 0 || len(id) > MaxIDSize {
		return fmt.Errorf("workload id is %d bytes, want 1 to %d", len(id), MaxIDSize)
	}
	if !idPattern.MatchString(id) {
		return fmt.Errorf("workload id %q: want lower-case letters, digits, '.', '_' and '-', the first a letter or digit", id)
	}
	return nil
}

// CheckPath returns an error unless path is REPOSITORY/TYPE/TAG.
func CheckPath(path string) error {
	if len(path) > MaxPathSize {
		return fmt.Errorf("resource path is %d bytes, at most %d allowed", len(path), MaxPathSize)
	}
	segments := strings.Split(path, "/")
	if len(segments) != 3 {
		return fmt.Errorf("resource path %q has %d segments, want REPOSITORY/TYPE/TAG", path, len(segments))
	}
	for _, s := range segments {
		if !segmentPattern.MatchString(s) {
			return fmt.Errorf("resource path %q: segment %q: want letters, digits, '_', '-' and, not first, '.'", path, s)
		}
	}
	return nil
}
