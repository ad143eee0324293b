// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxOpen is how many directories are kept open, so that neither a deep nor a scattered archive uses up the
// process's descriptors.
const maxOpen = 64

// disk is the sink that writes a directory.
type disk struct {
	w      *writer
	dir    *os.File // the layer's directory; the root's fd is its own
	root   *node
	create createResult

	open   [maxOpen]*node // directories with a descriptor, but the root; replaced in turn
	turn   int
	pinned *node // kept open while its directory is in use
}

// openDisk opens dir, which must be empty, for w.
func openDisk(dir string, w *writer) (*disk, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening directory: %w", err)
	}
	d := &disk{w: w, dir: f, root: w.tree.root}
	if _, err := f.Readdirnames(1); !errors.Is(err, io.EOF) {
		if err == nil {
			err = unix.ENOTEMPTY
		}
		d.close()
		return nil, fmt.Errorf("opening directory %s: %w", dir, err)
	}
	if d.create, err = probeCreate(dir); err != nil {
		d.close()
		return nil, err
	}
	d.root.fd = int(f.Fd())
	return d, nil
}

func (d *disk) close() {
	for _, n := range d.open {
		if n != nil {
			unix.Close(n.fd)
		}
	}
	d.dir.Close()
}

// fd returns a descriptor of n, valid until maxOpen others were asked for.
func (d *disk) fd(n *node) (int, error) {
	if n.fd >= 0 {
		return n.fd, nil
	}
	up, err := d.fd(n.parent)
	if err != nil {
		return -1, err
	}
	fd, err := openat(up, n.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("opening directory %s: %w", quote(n.name), err)
	}
	if old := d.open[d.turn]; old != nil && old == d.pinned {
		d.turn = (d.turn + 1) % maxOpen
	}
	if old := d.open[d.turn]; old != nil {
		unix.Close(old.fd)
		old.fd = -1
	}
	d.open[d.turn] = n
	d.turn = (d.turn + 1) % maxOpen
	n.fd = fd
	return fd, nil
}

// forget closes n's descriptor.
func (d *disk) forget(n *node) {
	if n.fd < 0 || n == d.root {
		return
	}
	for i := range d.open {
		if d.open[i] == n {
			d.open[i] = nil
		}
	}
	unix.Close(n.fd)
	n.fd = -1
}

func (d *disk) lookup(parent *node, name string) (found, error) {
	up, err := d.fd(parent)
	if err != nil {
		return 0, err
	}
	st, err := lstatat(up, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return foundNothing, nil
	case err != nil:
		return 0, err
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return foundSymlink, nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return foundDir, nil
	case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0:
		return foundWhiteout, nil
	}
	return foundOther, nil
}

func (d *disk) readlink(parent *node, name string) (string, error) {
	up, err := d.fd(parent)
	if err != nil {
		return "", err
	}
	return readlinkat(up, name)
}

// mkdir makes the directory for its owner alone: finish sets its attributes, until then nothing else has access and
// no child inherits from it.
func (d *disk) mkdir(parent *node, name string) error {
	up, err := d.fd(parent)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(up, name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return err
		}
		return fmt.Errorf("making directory: %w", err)
	}
	return nil
}

func (d *disk) make(parent *node, name string, e *entry) error {
	up, err := d.fd(parent)
	if err != nil {
		return err
	}
	switch e.kind {
	case typeFile:
		return d.file(up, name, e)
	case typeSymlink:
		if err := unix.Symlinkat(e.link, up, name); err != nil {
			return fmt.Errorf("making symbolic link: %w", err)
		}
	default:
		if err := unix.Mknodat(up, name, typeBits(e.kind)|e.mode&0o777, int(unix.Mkdev(e.major, e.minor))); err != nil {
			return fmt.Errorf("making device or FIFO: %w", err)
		}
	}
	return d.settleAt(up, name, e)
}

// file makes a regular file, writes its content and sets its attributes. Content comes first: writing would drop
// setuid bits and file capabilities again, and so would chown, which is next.
func (d *disk) file(up int, base string, e *entry) error {
	fd, err := openat(up, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, e.mode&0o777)
	if err != nil {
		return fmt.Errorf("making file: %w", err)
	}
	err = d.content(fd, e)
	if err == nil {
		err = d.settle(fd, e)
	}
	if cerr := unix.Close(fd); cerr != nil && err == nil {
		err = fmt.Errorf("closing file: %w", cerr)
	}
	return err
}

// content copies the entry's bytes from the stream to the file.
func (d *disk) content(fd int, e *entry) error {
	if e.sparse == nil {
		return d.copy(fd, e, e.size)
	}
	for _, s := range e.sparse {
		if _, err := unix.Seek(fd, s.offset, unix.SEEK_SET); err != nil {
			return fmt.Errorf("seeking to %d: %w", s.offset, err)
		}
		if err := d.copy(fd, e, s.length); err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, e.realSize); err != nil {
		return fmt.Errorf("setting size %d: %w", e.realSize, err)
	}
	return nil
}

// copy writes the next n bytes of content at fd's position.
func (d *disk) copy(fd int, e *entry, n int64) error {
	return d.w.take(e, n, func(data []byte) error { return writeAll(fd, data) })
}

func (d *disk) link(from *node, last string, parent *node, name string) error {
	d.pinned = from
	defer func() { d.pinned = nil }()
	old, err := d.fd(from)
	if err != nil {
		return err
	}
	up, err := d.fd(parent)
	if err != nil {
		return err
	}
	return unix.Linkat(old, last, up, name, 0)
}

func (d *disk) whiteout(parent *node, name string) error {
	up, err := d.fd(parent)
	if err != nil {
		return err
	}
	return unix.Mknodat(up, name, unix.S_IFCHR, 0)
}

func (d *disk) unlink(parent *node, name string) error {
	up, err := d.fd(parent)
	if err != nil {
		return err
	}
	return unix.Unlinkat(up, name, 0)
}

// removeTree relies on every component of n's path being a directory that was made here.
func (d *disk) removeTree(n *node) error {
	root, err := os.OpenRoot(d.dir.Name())
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(n.path())
}
