// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen is how many directories are kept open, so that neither a deep nor a scattered archive uses up the
	// process's descriptors.
	maxOpen = 64
	// maxLinks and maxSteps bound the walk to one entry through symbolic links that the archive made. 40 is the
	// kernel's own number of links.
	maxLinks = 40
	maxSteps = 4096
	// nodeBytes is about what one directory costs in memory, without its name.
	nodeBytes = 256
)

// node is one directory that this layer has made. Its place is given by nodes, never by a path that the kernel would
// resolve again.
type node struct {
	parent *node
	name   string
	depth  int
	fd     int // -1 while not open

	first, next, prev *node // children, and place among the parent's

	described bool // by an entry of its own
	opaque    bool
	hides     bool // has whiteouts
	mode      uint32
	uid, gid  uint32
	mtime     unix.Timespec
	xattrs    []xattr
}

// place finds a directory among its parent's children.
type place struct {
	parent *node
	name   string
}

// tree is the layer's directories, held in memory as they are on disk.
type tree struct {
	dir   *os.File // the layer's directory
	root  *node    // its fd is dir's
	dirs  map[place]*node
	depth int
	spare int64 // bytes of memory left

	open   [maxOpen]*node // directories with a descriptor, but the root; replaced in turn
	turn   int
	pinned *node // kept open while its directory is in use

	lastDir  string // the name that resolve saw last, clean, and what it is; nil when unknown
	lastNode *node
}

// openTree opens dir, which must be empty.
func openTree(dir string, lim Limits) (*tree, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening directory: %w", err)
	}
	if _, err := f.Readdirnames(1); !errors.Is(err, io.EOF) {
		f.Close()
		if err == nil {
			err = unix.ENOTEMPTY
		}
		return nil, fmt.Errorf("opening directory %s: %w", dir, err)
	}
	root := &node{fd: int(f.Fd())}
	return &tree{
		dir:      f,
		root:     root,
		dirs:     map[place]*node{},
		depth:    lim.Depth,
		spare:    lim.MemoryBytes,
		lastNode: root,
	}, nil
}

func (t *tree) close() {
	for _, n := range t.open {
		if n != nil {
			unix.Close(n.fd)
		}
	}
	t.dir.Close()
}

// charge takes n bytes off the memory that the layer may use.
func (t *tree) charge(n int) error {
	if t.spare -= int64(n); t.spare < 0 {
		return fmt.Errorf("%w: too many directories or directory attributes to keep in memory", ErrLimit)
	}
	return nil
}

// fd returns a descriptor of n, valid until maxOpen others were asked for.
func (t *tree) fd(n *node) (int, error) {
	if n.fd >= 0 {
		return n.fd, nil
	}
	up, err := t.fd(n.parent)
	if err != nil {
		return -1, err
	}
	fd, err := openat(up, n.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("opening directory %s: %w", quote(n.name), err)
	}
	if old := t.open[t.turn]; old != nil && old == t.pinned {
		t.turn = (t.turn + 1) % maxOpen
	}
	if old := t.open[t.turn]; old != nil {
		unix.Close(old.fd)
		old.fd = -1
	}
	t.open[t.turn] = n
	t.turn = (t.turn + 1) % maxOpen
	n.fd = fd
	return fd, nil
}

// shut closes n's descriptor.
func (t *tree) shut(n *node) {
	if n.fd < 0 || n == t.root {
		return
	}
	for i := range t.open {
		if t.open[i] == n {
			t.open[i] = nil
		}
	}
	unix.Close(n.fd)
	n.fd = -1
}

// mkdir makes a directory that is not there yet; EEXIST is returned bare. Its attributes are set by finish: until
// then nothing else has access and no child inherits from it.
func (t *tree) mkdir(parent *node, name string) (*node, error) {
	if parent.depth >= t.depth {
		return nil, fmt.Errorf("%w: more than %d directories deep", ErrLimit, t.depth)
	}
	if err := t.charge(nodeBytes + len(name)); err != nil {
		return nil, err
	}
	up, err := t.fd(parent)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(up, name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) {
			t.spare += int64(nodeBytes + len(name))
			return nil, err
		}
		return nil, fmt.Errorf("making directory: %w", err)
	}
	n := &node{parent: parent, name: strings.Clone(name), depth: parent.depth + 1, fd: -1, next: parent.first}
	if n.next != nil {
		n.next.prev = n
	}
	parent.first = n
	t.dirs[place{parent, n.name}] = n
	return n, nil
}

// remove makes name free again and says whether it was a whiteout.
func (t *tree) remove(parent *node, name string) (whiteout bool, err error) {
	t.lastNode = nil
	if n := t.dirs[place{parent, name}]; n != nil {
		return false, t.removeDir(n)
	}
	up, err := t.fd(parent)
	if err != nil {
		return false, err
	}
	st, err := lstatat(up, name)
	if err != nil {
		return false, fmt.Errorf("replacing an older entry: %w", err)
	}
	if err := unix.Unlinkat(up, name, 0); err != nil {
		return false, fmt.Errorf("replacing an older entry: %w", err)
	}
	return isWhiteout(st), nil
}

// removeDir removes a directory and all in it. Every component of its path is a directory made here.
func (t *tree) removeDir(n *node) error {
	root, err := os.OpenRoot(t.dir.Name())
	if err != nil {
		return fmt.Errorf("replacing an older directory: %w", err)
	}
	defer root.Close()
	path := n.path()
	t.forget(n)
	switch {
	case n.prev != nil:
		n.prev.next = n.next
	default:
		n.parent.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	if err := root.RemoveAll(path); err != nil {
		return fmt.Errorf("replacing an older directory: %w", err)
	}
	return nil
}

// forget drops a directory and those below it from the books.
func (t *tree) forget(n *node) {
	for c := n.first; c != nil; c = c.next {
		t.forget(c)
	}
	t.shut(n)
	delete(t.dirs, place{n.parent, n.name})
	t.spare += int64(nodeBytes + len(n.name))
}

// path is n's name from the root, "." for the root itself.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	if n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}

// resolve walks to the directory of a clean name, "" being the root. Symbolic links of this layer are followed with
// the layer's root as "/". With create, directories that are missing are made; without, they are an error.
func (t *tree) resolve(dir string, create bool) (*node, error) {
	if t.lastNode != nil && dir == t.lastDir {
		return t.lastNode, nil
	}
	n, rest, links := t.root, dir, 0
	for steps := 0; rest != ""; steps++ {
		if steps == maxSteps {
			return nil, fmt.Errorf("%w: more than %d steps through symbolic links", ErrLimit, maxSteps)
		}
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..": // from a link's target; the root is its own parent
			if n.parent != nil {
				n = n.parent
			}
			continue
		}
		if child := t.dirs[place{n, part}]; child != nil {
			n = child
			continue
		}
		child, target, err := t.enter(n, part, create)
		if err != nil {
			return nil, err
		}
		if child != nil {
			n = child
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%w: more than %d symbolic links in a path", ErrLimit, maxLinks)
		}
		if strings.HasPrefix(target, "/") {
			n = t.root
		}
		rest = target + "/" + rest
	}
	t.lastDir, t.lastNode = dir, n
	return n, nil
}

// enter handles a component that is no known directory: it returns the directory made in its place, or the target of
// the symbolic link that is there.
func (t *tree) enter(n *node, name string, create bool) (*node, string, error) {
	up, err := t.fd(n)
	if err != nil {
		return nil, "", err
	}
	st, err := lstatat(up, name)
	switch {
	case errors.Is(err, unix.ENOENT) && !create:
		return nil, "", fmt.Errorf("%w: %s does not exist", ErrFormat, quote(name))
	case errors.Is(err, unix.ENOENT):
		if strings.HasPrefix(name, whiteoutPrefix) {
			return nil, "", fmt.Errorf("%w: path through %s", ErrFormat, quote(name))
		}
		child, err := t.mkdir(n, name)
		return child, "", err
	case err != nil:
		return nil, "", fmt.Errorf("looking up %s: %w", quote(name), err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		target, err := readlinkat(up, name)
		if err != nil {
			return nil, "", fmt.Errorf("reading link %s: %w", quote(name), err)
		}
		return nil, target, nil
	case isWhiteout(st) && create:
		// The lower layers' directory goes, a new one comes.
		if _, err := t.remove(n, name); err != nil {
			return nil, "", err
		}
		child, err := t.mkdir(n, name)
		if err == nil {
			child.opaque = true
		}
		return child, "", err
	}
	return nil, "", fmt.Errorf("%w: %s is not a directory", ErrFormat, quote(name))
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
