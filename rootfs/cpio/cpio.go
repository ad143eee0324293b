// SPDX-License-Identifier: Apache-2.0

package cpio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Writer writes an archive. Parent directories are added by themselves, with mode 0755, when they are first needed.
// After an error only Close is of use, and it returns that error.
type Writer struct {
	w       *bufio.Writer
	written int64
	inode   uint32
	names   map[string]bool
	err     error
}

const (
	trailer = "TRAILER!!!"
	align   = 4
	sizeMax = 1<<32 - 1 // the field has 8 hexadecimal digits
)

// NewWriter writes to w, which the caller closes after Close.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriter(w), names: make(map[string]bool)}
}

// Dir adds a directory. Names are absolute; a directory that is there already is an error.
func (c *Writer) Dir(name string, perm uint32) error {
	return c.entry(name, unix.S_IFDIR|perm, 0, 0, 0, nil)
}

// File adds a regular file of size bytes from r.
func (c *Writer) File(name string, perm uint32, size int64, r io.Reader) error {
	return c.entry(name, unix.S_IFREG|perm, 0, 0, size, r)
}

// Symlink adds a symbolic link.
func (c *Writer) Symlink(name, target string) error {
	return c.entry(name, unix.S_IFLNK|0o777, 0, 0, int64(len(target)), strings.NewReader(target))
}

// CharDevice adds a node of a character device.
func (c *Writer) CharDevice(name string, perm, major, minor uint32) error {
	return c.entry(name, unix.S_IFCHR|perm, major, minor, 0, nil)
}

// Close ends the archive.
func (c *Writer) Close() error {
	if c.err == nil {
		c.header(trailer, 0, 0, 0, 0, 0, 1)
		c.pad()
		c.err = errors.Join(c.err, c.w.Flush())
	}
	return c.err
}

func (c *Writer) entry(name string, mode, major, minor uint32, size int64, r io.Reader) error {
	if c.err != nil {
		return c.err
	}
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" || c.names[name] {
		c.err = fmt.Errorf("adding %q: no new absolute name", name)
		return c.err
	}
	if size < 0 || size > sizeMax {
		c.err = fmt.Errorf("adding %s: %d bytes", name, size)
		return c.err
	}
	if parent := path.Dir(name); parent != "/" && !c.names[parent] {
		if err := c.Dir(parent, 0o755); err != nil {
			return err
		}
	}
	c.names[name] = true
	c.inode++
	c.header(name[1:], c.inode, mode, major, minor, size, 1)
	if r != nil {
		n, err := io.Copy(c.w, io.LimitReader(r, size))
		c.written += n
		if err == nil && n != size {
			err = fmt.Errorf("got %d bytes, want %d", n, size)
		}
		if err != nil && c.err == nil {
			c.err = fmt.Errorf("adding %s: %w", name, err)
		}
	}
	c.pad()
	return c.err
}

// header writes the 110 bytes of numbers and the name. Owner, time and checksum are zero.
func (c *Writer) header(name string, inode, mode, major, minor uint32, size int64, links uint32) {
	c.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.pad()
}

func (c *Writer) pad() {
	if n := c.written % align; n != 0 {
		c.printf("%s", "\x00\x00\x00"[:align-n])
	}
}

func (c *Writer) printf(format string, args ...any) {
	n, err := fmt.Fprintf(c.w, format, args...)
	c.written += int64(n)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("writing the archive: %w", err)
	}
}
