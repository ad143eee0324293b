// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
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
	fd     int               // on disk: -1 while not open
	files  map[string]*inode // in an image: all that is in it but directories
	made   *inode            // in an image: what finish made of it

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

// tree is the layer's directories, held in memory as they are in the sink.
type tree struct {
	sink  sink
	root  *node
	dirs  map[place]*node
	depth int
	spare int64 // bytes of memory left

	lastDir  string // the name that resolve saw last, clean, and what it is; nil when unknown
	lastNode *node
}

func newTree(lim Limits) *tree {
	root := &node{fd: -1}
	return &tree{root: root, dirs: map[place]*node{}, depth: lim.Depth, spare: lim.MemoryBytes, lastNode: root}
}

// charge takes n bytes off the memory that the layer may use.
func (t *tree) charge(n int) error {
	if t.spare -= int64(n); t.spare < 0 {
		return fmt.Errorf("%w: too much to keep in memory: directories, their attributes, entries of an image", ErrLimit)
	}
	return nil
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
	if err := t.sink.mkdir(parent, name); err != nil {
		t.spare += int64(nodeBytes + len(name))
		return nil, err
	}
	n := &node{parent: parent, name: strings.Clone(name), depth: parent.depth + 1, fd: -1, next: parent.first}
	if n.next != nil {
		n.next.prev = n
	}
	parent.first = n
	t.dirs[place{parent, n.name}] = n
	return n, nil
}

// remove makes name free again.
func (t *tree) remove(parent *node, name string) error {
	t.lastNode = nil
	n := t.dirs[place{parent, name}]
	if n == nil {
		if err := t.sink.unlink(parent, name); err != nil {
			return fmt.Errorf("replacing an older entry: %w", err)
		}
		return nil
	}
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
	if err := t.sink.removeTree(n); err != nil {
		return fmt.Errorf("replacing an older directory: %w", err)
	}
	return nil
}

// forget drops a directory and those below it from the books.
func (t *tree) forget(n *node) {
	for c := n.first; c != nil; c = c.next {
		t.forget(c)
	}
	t.sink.forget(n)
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
	what, err := t.sink.lookup(n, name)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("looking up %s: %w", quote(name), err)
	case what == foundNothing && !create:
		return nil, "", fmt.Errorf("%w: %s does not exist", ErrFormat, quote(name))
	case what == foundNothing:
		if strings.HasPrefix(name, whiteoutPrefix) {
			return nil, "", fmt.Errorf("%w: path through %s", ErrFormat, quote(name))
		}
		child, err := t.mkdir(n, name)
		return child, "", err
	case what == foundSymlink:
		target, err := t.sink.readlink(n, name)
		if err != nil {
			return nil, "", fmt.Errorf("reading link %s: %w", quote(name), err)
		}
		return nil, target, nil
	case what == foundWhiteout && create:
		// The lower layers' directory goes, a new one comes.
		if err := t.remove(n, name); err != nil {
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
