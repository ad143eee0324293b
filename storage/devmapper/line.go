// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// line is the parameter line of one target. It is written straight into the buffer of the ioctl and never grows
// out of it, so a key in it has exactly one copy. The first error sticks.
type line struct {
	buf []byte
	n   int
	err error
}

var errLineTooLong = errors.New("the table does not fit its buffer")

func (l *line) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// raw appends without a separator.
func (l *line) raw(s string) {
	if l.n+len(s) > len(l.buf) {
		l.fail(errLineTooLong)
		return
	}
	l.n += copy(l.buf[l.n:], s)
}

func (l *line) word(s string) {
	if l.n > 0 {
		l.raw(" ")
	}
	l.raw(s)
}

func (l *line) number(v uint64) { l.word(strconv.FormatUint(v, 10)) }

// hex appends b in lower case, or "-" when b is empty.
func (l *line) hex(b []byte) {
	if len(b) == 0 {
		l.word("-")
		return
	}
	l.word("")
	l.rawHex(b)
}

func (l *line) rawHex(b []byte) {
	if l.n+hex.EncodedLen(len(b)) > len(l.buf) {
		l.fail(errLineTooLong)
		return
	}
	l.n += hex.Encode(l.buf[l.n:], b)
}

// device appends the path of a block device. The kernel splits a line at white space and honours backslashes, so
// only plain absolute paths are let through.
func (l *line) device(p string) {
	ok := strings.HasPrefix(p, "/") && path.Clean(p) == p
	for _, c := range []byte(p) {
		ok = ok && (isAlnum(c) || strings.IndexByte("/._+:-", c) >= 0)
	}
	if !ok {
		l.fail(fmt.Errorf("%q is no path of a device", p))
		return
	}
	l.word(p)
}

// options appends the count of optional arguments and the arguments.
func (l *line) options(opts []string) {
	if len(opts) == 0 {
		return
	}
	l.number(uint64(len(opts)))
	for _, o := range opts {
		l.word(o)
	}
}

// option appends an optional argument that has a value.
func (l *line) option(name string, v uint64) {
	l.word(name)
	l.number(v)
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// checkName accepts what is safe as a name in /dev/mapper and as a UUID: at most limit bytes.
func checkName(what, s string, limit int) error {
	ok := len(s) >= 1 && len(s) <= limit && s[0] != '.' && s[0] != '-'
	for _, c := range []byte(s) {
		ok = ok && (isAlnum(c) || strings.IndexByte("._+-", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%q is no %s of a mapping", s, what)
	}
	return nil
}
