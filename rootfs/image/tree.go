// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// Kind says what an entry is.
type Kind int

// The kinds of entries. The zero value is none of them.
const (
	Directory Kind = iota + 1
	File
	Link // symbolic
	CharDevice
)

// Entry is one name in a guest.
type Entry struct {
	Path         string // absolute and clean
	Kind         Kind
	Perm         uint32 // permission bits; those of links are not used
	HostPath     string // where a file's content is read from, or
	Text         string // the content itself
	Target       string // of a link
	Major, Minor uint32 // of a device
}

const (
	filePerm    = 0o644
	programPerm = 0o755
	dirPerm     = 0o755
	// tempDir alone may be written by all: a tmpfs is mounted there.
	tempDir     = "/tmp"
	tempDirPerm = 0o1777
	// maxEntries and maxFileBytes bound a tree: an erofs image is built in memory but for its files' content.
	maxEntries   = 1 << 16
	maxFileBytes = 1 << 30
)

// shells are the names of programs that give whoever starts them all of the guest.
func shells() []string {
	return []string{"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "sulogin", "tcsh", "toybox", "zsh"}
}

// diskTools are the names of programs that casemate does itself what they do: a guest that holds one has somebody to
// start it.
func diskTools() []string {
	return []string{"cryptsetup", "dd", "dmsetup", "e2fsck", "integritysetup", "mke2fs", "mkfs", "mkfs.ext4", "veritysetup"}
}

// Tree is the content of a guest's root.
type Tree struct {
	entries map[string]Entry
	debug   bool // a shell may be in it
}

// NewTree returns a tree with nothing but its root.
func NewTree() *Tree { return &Tree{entries: make(map[string]Entry)} }

// Add adds entries. Directories above them that are not there yet are made, with
// mode 0755. An error leaves the tree unusable.
func (t *Tree) Add(entries ...Entry) error {
	for _, e := range entries {
		if err := t.add(e); err != nil {
			return fmt.Errorf("adding %q to the image: %w", e.Path, err)
		}
	}
	return nil
}

func (t *Tree) add(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if e.Kind != Directory && !t.debug && slices.Contains(shells(), path.Base(e.Path)) {
		return errors.New("a shell has no place in a measured guest")
	}
	if old, ok := t.entries[e.Path]; ok {
		if old.Kind == Directory && e == old {
			return nil
		}
		return errors.New("it is there already")
	}
	if len(t.entries) >= maxEntries {
		return fmt.Errorf("over %d entries", maxEntries)
	}
	if parent := path.Dir(e.Path); parent != "/" {
		if p, ok := t.entries[parent]; !ok {
			if err := t.add(Entry{Path: parent, Kind: Directory, Perm: dirPerm}); err != nil {
				return err
			}
		} else if p.Kind != Directory {
			return fmt.Errorf("%s is no directory", parent)
		}
	}
	t.entries[e.Path] = e
	return nil
}

// check refuses what must not be in a measured guest.
func (e Entry) check() error {
	if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || e.Path == "/" || strings.ContainsAny(e.Path, "\x00\n\r") {
		return errors.New("no clean absolute path")
	}
	switch e.Kind {
	case Directory, File:
		want := e.Perm&^0o755 == 0 || e.Kind == Directory && e.Path == tempDir && e.Perm == tempDirPerm
		if !want {
			return fmt.Errorf("mode %#o: set-uid, set-gid and sticky bits and writing by others are refused", e.Perm)
		}
	case Link:
		if e.Target == "" || strings.ContainsAny(e.Target, "\x00\n\r") {
			return fmt.Errorf("link to %q", e.Target)
		}
	case CharDevice:
		if !strings.HasPrefix(e.Path, "/dev/") {
			return errors.New("a device outside /dev")
		}
	default:
		return errors.New("it has no kind")
	}
	if e.Kind != Directory && slices.Contains(diskTools(), path.Base(e.Path)) {
		return errors.New("casemate starts no such program, and nobody else may")
	}
	return nil
}

// Entries returns all entries by name, so directories before what is in them.
// Configuration in /etc so comes before the program: see TestConfigurationComesBeforeTheProgram.
func (t *Tree) Entries() []Entry {
	list := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// open returns the content of a file and its size in bytes. The caller closes it.
func (e Entry) open() (io.ReadCloser, int64, error) {
	if e.HostPath == "" {
		return io.NopCloser(strings.NewReader(e.Text)), int64(len(e.Text)), nil
	}
	f, err := os.Open(e.HostPath)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file", e.HostPath)
	case info.Size() > maxFileBytes:
		err = fmt.Errorf("%s has %d bytes: want at most %d", e.HostPath, info.Size(), maxFileBytes)
	}
	var start [2]byte
	if err == nil && e.Perm&0o111 != 0 {
		if n, _ := f.ReadAt(start[:], 0); bytes.Equal(start[:n], []byte("#!")) {
			err = fmt.Errorf("%s is a script: a measured guest has nothing to run it", e.HostPath)
		}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Size is what an entry weighs: its content's bytes if it is a file.
func (e Entry) Size() (int64, error) {
	if e.Kind != File {
		return 0, nil
	}
	r, size, err := e.open()
	if err != nil {
		return 0, err
	}
	return size, r.Close()
}
