// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// restoreDirectories gives directories of the merged tree back the attributes
// that a layer set. An archive may hold usr/bin/tool and no entry for usr:
// unpacked by itself, that layer then has a usr with made-up attributes, which
// overlayfs prefers because it is on top; the root is always the upper directory's.
// Layers are shared between images, so the correction goes into the mounted tree.
func restoreDirectories(target string, layers []*layer) error {
	implied := make([]map[string]bool, len(layers))
	paths := []string{"."} // the upper directory is the root's topmost, and new
	for i, l := range layers {
		implied[i] = make(map[string]bool, len(l.implied))
		for _, path := range l.implied {
			implied[i][path] = true
		}
		paths = append(paths, l.implied...)
	}
	// Deepest first: copying up a directory touches its parent's time.
	slices.SortFunc(paths, func(a, b string) int { return cmp.Or(cmp.Compare(depth(b), depth(a)), cmp.Compare(a, b)) })
	for _, path := range slices.Compact(paths) {
		dir, err := describedIn(layers, implied, path)
		if err != nil {
			return err
		}
		if dir == "" {
			continue
		}
		if err := copyAttributes(target, dir, path); err != nil {
			return fmt.Errorf("restoring directory %q: %w", path, err)
		}
	}
	return nil
}

func depth(path string) int {
	if path == "." {
		return 0
	}
	return 1 + strings.Count(path, "/")
}

// describedIn returns the directory of the layer whose archive describes path as
// the merged tree shows it, when that is not the topmost layer that has it; else "".
func describedIn(layers []*layer, implied []map[string]bool, path string) (string, error) {
	above := path == "." // something further up has the directory, without a description
	for i, l := range slices.Backward(layers) {
		found, hides, err := lookup(l.dir, path)
		if err != nil {
			return "", fmt.Errorf("looking up %q in a layer: %w", path, err)
		}
		if found && !implied[i][path] {
			if above {
				return l.dir, nil
			}
			return "", nil
		}
		above = above || found
		if hides {
			return "", nil
		}
	}
	return "", nil
}

// lookup reports whether a layer has path as a directory and whether it hides
// what layers below have there: by anything else in the place of path or of a
// parent, a whiteout included, or by an opaque directory.
func lookup(dir, path string) (found, hides bool, err error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, false, err
	}
	defer unix.Close(root)
	if path == "." {
		return true, false, nil
	}
	for end := 0; end < len(path); {
		next := strings.IndexByte(path[end+1:], '/')
		if end += 1 + next; next < 0 {
			end = len(path)
		}
		fd, err := openBeneath(root, path[:end])
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, hides, nil
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			return false, true, nil
		case err != nil:
			return false, false, err
		}
		hides = hides || isOpaque(fd)
		unix.Close(fd)
	}
	return true, hides, nil
}

// openBeneath opens a directory below root without following any link.
func openBeneath(root int, path string) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

func isOpaque(fd int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// copyAttributes gives path in the mounted tree the owner, mode, attributes and
// time that it has in a layer.
func copyAttributes(target, layerDir, path string) error {
	from, err := openIn(layerDir, path)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := openIn(target, path)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(to, from); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func openIn(dir, path string) (int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return openBeneath(root, path)
}

func copyXattrs(to, from int) error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("reading attribute %q: %w", name, err)
		}
		if err := unix.Fsetxattr(to, name, value[:size], 0); err != nil {
			return fmt.Errorf("setting attribute %q: %w", name, err)
		}
	}
	return nil
}
