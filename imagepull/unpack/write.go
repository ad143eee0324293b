// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// entry puts one entry on disk, or into the books for a directory, and consumes its content.
func (w *writer) entry(e *entry) error {
	name, err := clean(e.name, w.lim.Depth)
	if err != nil {
		return err
	}
	if e.name == "" {
		return fmt.Errorf("%w: empty name", ErrFormat)
	}
	role, hidden, err := roleOf(name)
	if err != nil {
		return err
	}
	size := e.size
	if role != roleSkipped {
		if err := w.place(e, name, role, hidden); err != nil {
			return err
		}
	}
	if err := w.in.skip(e.size); err != nil { // what place has not taken: content of whiteouts and aufs files
		return err
	}
	return w.in.pad(size)
}

// place walks to the entry's directory and makes the entry there.
func (w *writer) place(e *entry, name string, role role, hidden string) error {
	if name == "" {
		if e.kind != typeDir {
			return fmt.Errorf("%w: the root as entry of type %q", ErrFormat, e.kind)
		}
		return w.describe(w.tree.root, e)
	}
	dir, base := split(name)
	parent, err := w.tree.resolve(dir, true)
	if err != nil {
		return fmt.Errorf("resolving directory: %w", err)
	}
	switch role {
	case roleOpaque:
		parent.opaque = true
		return nil
	case roleWhiteout:
		return w.whiteout(parent, hidden)
	}
	if e.kind == typeDir {
		return w.dir(parent, base, e)
	}
	up, err := w.tree.fd(parent)
	if err != nil {
		return err
	}
	err = w.make(parent, up, base, e)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if _, err := w.tree.remove(parent, base); err != nil {
		return err
	}
	if up, err = w.tree.fd(parent); err != nil {
		return err
	}
	return w.make(parent, up, base, e)
}

// make makes what is not a directory. EEXIST says that the name is taken; nothing was consumed or changed then.
func (w *writer) make(parent *node, up int, base string, e *entry) error {
	switch e.kind {
	case typeFile:
		return w.file(up, base, e)
	case typeHardLink:
		return w.hardLink(parent, base, e)
	case typeSymlink:
		if e.link == "" || len(e.link) >= maxPath {
			return fmt.Errorf("%w: symbolic link to %d bytes", ErrFormat, len(e.link))
		}
		if err := unix.Symlinkat(e.link, up, base); err != nil {
			return fmt.Errorf("making symbolic link: %w", err)
		}
	default:
		kind := map[byte]uint32{typeChar: unix.S_IFCHR, typeBlock: unix.S_IFBLK, typeFIFO: unix.S_IFIFO}[e.kind]
		if err := unix.Mknodat(up, base, kind|e.mode&0o777, int(unix.Mkdev(e.major, e.minor))); err != nil {
			return fmt.Errorf("making device or FIFO: %w", err)
		}
	}
	return w.settleAt(up, base, e)
}

// file makes a regular file, writes its content and sets its attributes. Content comes first: writing would drop
// setuid bits and file capabilities again, and so would chown, which is next.
func (w *writer) file(up int, base string, e *entry) error {
	fd, err := openat(up, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, e.mode&0o777)
	if err != nil {
		return fmt.Errorf("making file: %w", err)
	}
	err = w.content(fd, e)
	if err == nil {
		err = w.settle(fd, e)
	}
	if cerr := unix.Close(fd); cerr != nil && err == nil {
		err = fmt.Errorf("closing file: %w", cerr)
	}
	return err
}

// content copies the entry's bytes from the stream to the file.
func (w *writer) content(fd int, e *entry) error {
	if e.sparse == nil {
		return w.copy(fd, e, e.size)
	}
	for _, s := range e.sparse {
		if _, err := unix.Seek(fd, s.offset, unix.SEEK_SET); err != nil {
			return fmt.Errorf("seeking to %d: %w", s.offset, err)
		}
		if err := w.copy(fd, e, s.length); err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, e.realSize); err != nil {
		return fmt.Errorf("setting size %d: %w", e.realSize, err)
	}
	return nil
}

// copy writes the next n bytes of content at fd's position.
func (w *writer) copy(fd int, e *entry, n int64) error {
	for n > 0 {
		data, err := w.in.data(n)
		if err != nil {
			return err
		}
		if err := writeAll(fd, data); err != nil {
			return fmt.Errorf("writing content: %w", err)
		}
		w.in.consume(len(data))
		w.stats.Bytes += int64(len(data))
		n -= int64(len(data))
		e.size -= int64(len(data))
		if n > 0 { // a large file
			if err := w.ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// hardLink links to an older entry of this layer. The target's own last component is not followed: a link to a
// symbolic link is one more name of that symbolic link.
func (w *writer) hardLink(parent *node, base string, e *entry) error {
	target, err := clean(e.link, w.lim.Depth)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(e.link), err)
	}
	dir, last := split(target)
	from, err := w.tree.resolve(dir, false)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(e.link), err)
	}
	if last == "" || from == parent && last == base {
		return fmt.Errorf("%w: hard link to %s", ErrFormat, quote(e.link))
	}
	w.tree.pinned = from
	defer func() { w.tree.pinned = nil }()
	old, err := w.tree.fd(from)
	if err != nil {
		return err
	}
	up, err := w.tree.fd(parent)
	if err != nil {
		return err
	}
	st, err := lstatat(old, last)
	if err != nil || isWhiteout(st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("looking up hard link target %s: %w", quote(e.link), err)
		}
		return fmt.Errorf("%w: hard link to %s, which is no file of this layer", ErrFormat, quote(e.link))
	}
	if err := unix.Linkat(old, last, up, base, 0); err != nil {
		return fmt.Errorf("linking to %s: %w", quote(e.link), err)
	}
	return nil
}

// dir makes a directory, or takes over the attributes for one that is there. One that stands where this layer had
// something else hides the lower layers' directory, as that something did.
func (w *writer) dir(parent *node, base string, e *entry) error {
	n := w.tree.dirs[place{parent, base}]
	if n == nil {
		var err error
		if n, err = w.tree.mkdir(parent, base); errors.Is(err, unix.EEXIST) {
			if _, err = w.tree.remove(parent, base); err != nil {
				return err
			}
			if n, err = w.tree.mkdir(parent, base); err == nil {
				n.opaque = true
			}
		}
		if err != nil {
			return err
		}
	}
	return w.describe(n, e)
}

// whiteout hides a name of the lower layers. What this layer itself has under that name stays.
func (w *writer) whiteout(parent *node, hidden string) error {
	if n := w.tree.dirs[place{parent, hidden}]; n != nil {
		n.opaque = true
		return nil
	}
	up, err := w.tree.fd(parent)
	if err != nil {
		return err
	}
	err = unix.Mknodat(up, hidden, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making whiteout: %w", err)
	}
	parent.hides = true
	w.stats.Whiteouts++
	return nil
}
