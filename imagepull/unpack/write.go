// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// entry puts one entry into the sink, or into the books for a directory, and consumes its content.
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
	err = w.make(parent, base, e)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := w.tree.remove(parent, base); err != nil {
		return err
	}
	return w.make(parent, base, e)
}

// make makes what is not a directory. EEXIST says that the name is taken; nothing was consumed or changed then.
func (w *writer) make(parent *node, base string, e *entry) error {
	switch {
	case e.kind == typeHardLink:
		return w.hardLink(parent, base, e)
	case e.kind == typeSymlink && (e.link == "" || len(e.link) >= maxPath):
		return fmt.Errorf("%w: symbolic link to %d bytes", ErrFormat, len(e.link))
	}
	return w.tree.sink.make(parent, base, e)
}

// take hands the next n bytes of e's content on, piece by piece.
func (w *writer) take(e *entry, n int64, to func([]byte) error) error {
	for n > 0 {
		data, err := w.in.data(n)
		if err != nil {
			return err
		}
		if err := to(data); err != nil {
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
	what, err := w.tree.sink.lookup(from, last)
	if err != nil {
		return fmt.Errorf("looking up hard link target %s: %w", quote(e.link), err)
	}
	if what == foundNothing || what == foundWhiteout || what == foundDir {
		return fmt.Errorf("%w: hard link to %s, which is no file of this layer", ErrFormat, quote(e.link))
	}
	if err := w.tree.sink.link(from, last, parent, base); err != nil {
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
			if err = w.tree.remove(parent, base); err != nil {
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
	err := w.tree.sink.whiteout(parent, hidden)
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
