// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxExtension bounds the body of one extension header: pax records or a GNU long name. All attributes of one
	// file together fit many times over.
	maxExtension = 1 << 20
	// maxRecords bounds the records of one pax header. Sparse maps in the oldest pax form need two for each segment.
	maxRecords = 8192
	// maxXattrs bounds the extended attributes of one entry.
	maxXattrs = 256
	// maxXattrValue is the kernel's XATTR_SIZE_MAX.
	maxXattrValue = 64 << 10
	// maxXattrName is the kernel's XATTR_NAME_MAX.
	maxXattrName = 255
)

// xattr is one extended attribute.
type xattr struct {
	name  string
	value []byte
}

// paxRecords is what the pax header before an entry says about it. A nil pointer or false means not said.
type paxRecords struct {
	path, linkpath *string
	size           *int64
	uid, gid       *int64
	mtime          *unix.Timespec
	xattrs         []xattr
	sparse         paxSparse
}

// paxSparse holds the GNU.sparse.* records of the three forms of GNU tar's manual, "Sparse Formats".
type paxSparse struct {
	major, minor   *int64
	name           *string
	size, realSize *int64
	blocks         *int64
	segments       []segment // forms 0.0 and 0.1
	mapped         bool      // a GNU.sparse.map was there (0.1)
	paired         bool      // GNU.sparse.offset was there (0.0)
	offset         *int64    // an offset that waits for its length
}

func (p *paxSparse) present() bool {
	return p.major != nil || p.minor != nil || p.name != nil || p.size != nil || p.realSize != nil ||
		p.blocks != nil || p.mapped || p.paired
}

// nextRecord cuts the first record "LENGTH KEY=VALUE\n" off body. LENGTH counts the whole record.
func nextRecord(body []byte) (key string, value, rest []byte, err error) {
	space := bytes.IndexByte(body, ' ')
	if space < 1 || space > 7 { // maxExtension has 7 digits
		return "", nil, nil, fmt.Errorf("%w: pax record without a length", ErrFormat)
	}
	n := 0
	for _, c := range body[:space] {
		if c < '0' || c > '9' {
			return "", nil, nil, fmt.Errorf("%w: pax record length %q", ErrFormat, body[:space])
		}
		n = n*10 + int(c-'0')
	}
	if n < space+4 || n > len(body) || body[n-1] != '\n' { // at least " K=\n"
		return "", nil, nil, fmt.Errorf("%w: pax record of length %d in %d bytes", ErrFormat, n, len(body))
	}
	record := body[space+1 : n-1]
	equal := bytes.IndexByte(record, '=')
	if equal < 1 || bytes.IndexByte(record[:equal], 0) >= 0 {
		return "", nil, nil, fmt.Errorf("%w: pax record without a key", ErrFormat)
	}
	return string(record[:equal]), record[equal+1:], body[n:], nil
}

// parsePax reads the records of a pax header for one entry. A key that changes something here is allowed once. Keys
// that do not (comment, other vendors' keys) are passed over. Values in the result point into body.
func parsePax(body []byte) (*paxRecords, error) {
	p := &paxRecords{}
	for count := 0; len(body) > 0; count++ {
		if count == maxRecords {
			return nil, fmt.Errorf("%w: more than %d pax records", ErrLimit, maxRecords)
		}
		key, value, rest, err := nextRecord(body)
		if err != nil {
			return nil, err
		}
		if err := p.set(key, value); err != nil {
			return nil, fmt.Errorf("pax record %s: %w", quote(key), err)
		}
		body = rest
	}
	if p.sparse.offset != nil {
		return nil, fmt.Errorf("%w: GNU.sparse.offset without GNU.sparse.numbytes", ErrFormat)
	}
	return p, nil
}

func (p *paxRecords) set(key string, value []byte) error {
	switch key {
	case "path":
		return setText(&p.path, value)
	case "linkpath":
		return setText(&p.linkpath, value)
	case "size":
		return setNatural(&p.size, value)
	case "uid":
		return setNatural(&p.uid, value)
	case "gid":
		return setNatural(&p.gid, value)
	case "mtime":
		return setTime(&p.mtime, value)
	case "atime", "ctime": // not used, but other readers refuse a bad one
		_, err := parseTime(value)
		return err
	case "uname", "gname":
		if bytes.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("%w: NUL in a name", ErrFormat)
		}
		return nil
	}
	if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
		return p.setXattr(name, value)
	}
	if name, ok := strings.CutPrefix(key, "GNU.sparse."); ok {
		return p.sparse.set(name, value)
	}
	return nil
}

func (p *paxRecords) setXattr(name string, value []byte) error {
	if name == "" || len(name) > maxXattrName || strings.IndexByte(name, 0) >= 0 || !strings.Contains(name, ".") {
		return fmt.Errorf("%w: attribute name", ErrFormat)
	}
	if len(value) > maxXattrValue {
		return fmt.Errorf("%w: attribute of %d bytes, at most %d", ErrLimit, len(value), maxXattrValue)
	}
	if len(p.xattrs) == maxXattrs {
		return fmt.Errorf("%w: more than %d attributes", ErrLimit, maxXattrs)
	}
	for _, x := range p.xattrs {
		if x.name == name {
			return errRepeated()
		}
	}
	p.xattrs = append(p.xattrs, xattr{name, value})
	return nil
}

func (p *paxSparse) set(name string, value []byte) error {
	switch name {
	case "major":
		return setNatural(&p.major, value)
	case "minor":
		return setNatural(&p.minor, value)
	case "name":
		return setText(&p.name, value)
	case "size":
		return setNatural(&p.size, value)
	case "realsize":
		return setNatural(&p.realSize, value)
	case "numblocks":
		return setNatural(&p.blocks, value)
	case "map":
		if p.mapped {
			return errRepeated()
		}
		p.mapped = true
		return p.setMap(value)
	case "offset":
		p.paired = true
		return setNatural(&p.offset, value)
	case "numbytes":
		return p.setPair(value)
	}
	return fmt.Errorf("%w: unknown sparse record", ErrFormat)
}

// setPair ends a pair of offset and numbytes records.
func (p *paxSparse) setPair(value []byte) error {
	if p.offset == nil {
		return fmt.Errorf("%w: no GNU.sparse.offset before it", ErrFormat)
	}
	length, err := parseNatural(value)
	if err != nil {
		return err
	}
	p.segments = append(p.segments, segment{*p.offset, length})
	p.offset = nil
	return nil
}

// setMap reads "offset,length,offset,length...".
func (p *paxSparse) setMap(value []byte) error {
	for more := len(value) > 0; more; {
		if len(p.segments) == maxSegments {
			return fmt.Errorf("%w: more than %d sparse segments", ErrLimit, maxSegments)
		}
		var first, second []byte
		first, value, _ = bytes.Cut(value, []byte(","))
		second, value, more = bytes.Cut(value, []byte(","))
		offset, err := parseNatural(first)
		if err != nil {
			return err
		}
		length, err := parseNatural(second)
		if err != nil {
			return err
		}
		p.segments = append(p.segments, segment{offset, length})
	}
	return nil
}

func errRepeated() error { return fmt.Errorf("%w: repeated", ErrFormat) }

func setText(to **string, value []byte) error {
	if *to != nil {
		return errRepeated()
	}
	if len(value) == 0 || bytes.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("%w: empty or with a NUL", ErrFormat)
	}
	s := string(value)
	*to = &s
	return nil
}

func setNatural(to **int64, value []byte) error {
	if *to != nil {
		return errRepeated()
	}
	n, err := parseNatural(value)
	if err != nil {
		return err
	}
	*to = &n
	return nil
}

// parseNatural reads a plain decimal number: no sign, no space.
func parseNatural(value []byte) (int64, error) {
	if len(value) == 0 || len(value) > 19 {
		return 0, fmt.Errorf("%w: number %s", ErrFormat, quote(string(value)))
	}
	n := uint64(0)
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%w: number %s", ErrFormat, quote(string(value)))
		}
		n = n*10 + uint64(c-'0') // 19 digits fit
	}
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("%w: number %d", ErrFormat, n)
	}
	return int64(n), nil
}

func setTime(to **unix.Timespec, value []byte) error {
	if *to != nil {
		return errRepeated()
	}
	t, err := parseTime(value)
	*to = &t
	return err
}

// parseTime reads seconds since 1970 with an optional sign and fraction, which counts away from zero. Digits behind
// the ninth are dropped.
func parseTime(value []byte) (unix.Timespec, error) {
	whole, fraction, _ := strings.Cut(string(value), ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec == math.MinInt64 || strings.HasPrefix(whole, "+") || len(value) > 64 ||
		strings.Trim(fraction, "0123456789") != "" {
		return unix.Timespec{}, fmt.Errorf("%w: time %s", ErrFormat, quote(string(value)))
	}
	nsec := int64(0)
	for i := range 9 {
		nsec *= 10
		if i < len(fraction) {
			nsec += int64(fraction[i] - '0')
		}
	}
	if strings.HasPrefix(whole, "-") && nsec > 0 {
		sec, nsec = sec-1, 1e9-nsec
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}, nil
}

// checkGlobal reads a pax header that speaks of all later entries. Readers differ in whether they obey it, so only
// what changes no entry is let through: comments (git's commit id), names beside the numeric ids, times never set.
func checkGlobal(body []byte) error {
	for count := 0; len(body) > 0; count++ {
		if count == maxRecords {
			return fmt.Errorf("%w: more than %d pax records", ErrLimit, maxRecords)
		}
		key, _, rest, err := nextRecord(body)
		if err != nil {
			return err
		}
		switch key {
		case "comment", "uname", "gname", "atime", "ctime", "hdrcharset", "charset":
		default:
			return fmt.Errorf("%w: global pax record %s", ErrFormat, quote(key))
		}
		body = rest
	}
	return nil
}
