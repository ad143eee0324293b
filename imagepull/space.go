// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// available is the number of bytes that dir's filesystem still takes.
func available(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	free := s.Bavail * uint64(s.Frsize) //nolint:gosec // a block size is positive
	return int64(min(free, 1<<62)), nil
}

// preflight fails when not even the layers as they are transferred fit into dir.
// What they unpack to is unknown before they are, so passing it is no promise.
func preflight(dir string, needed int64) error {
	free, err := available(dir)
	if err != nil {
		return err
	}
	if free < needed {
		up := func(n int64) int64 { return (n + mib - 1) / mib }
		return fmt.Errorf("%w: it needs at least %d MiB, %s has %d MiB: %d MiB are missing",
			ErrNoSpace, up(needed), dir, free/mib, up(needed-free))
	}
	return nil
}
