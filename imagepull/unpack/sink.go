// SPDX-License-Identifier: Apache-2.0

package unpack

// sink is where a layer goes: a directory on disk or the tree of an image. The rules of what an archive means are the
// writer's and the tree's, once for every sink; a sink does as it is told and knows no paths, only names in
// directories.
type sink interface {
	// lookup tells what name is in parent.
	lookup(parent *node, name string) (found, error)
	// readlink returns the target of a symbolic link.
	readlink(parent *node, name string) (string, error)
	// mkdir makes a directory. The error is unix.EEXIST, bare, when the name is taken.
	mkdir(parent *node, name string) error
	// make makes a file, symbolic link, device or FIFO with all its attributes and consumes a file's content. The
	// error wraps unix.EEXIST when the name is taken; nothing was consumed or changed then.
	make(parent *node, name string, e *entry) error
	// link makes one more name of what is no directory, with the same errors.
	link(from *node, last string, parent *node, name string) error
	// whiteout makes an overlayfs whiteout. The error is unix.EEXIST, bare, when the name is taken.
	whiteout(parent *node, name string) error
	// unlink takes away a name that is no directory.
	unlink(parent *node, name string) error
	// removeTree takes away a directory and all below it. The tree has forgotten it.
	removeTree(n *node) error
	// forget drops what the sink keeps open for n.
	forget(n *node)
	// finish gives a directory its attributes, after all that is in it.
	finish(n *node) error
}

// found is what a name is.
type found int

const (
	foundNothing found = iota
	foundWhiteout
	foundSymlink
	foundDir
	foundOther
)
