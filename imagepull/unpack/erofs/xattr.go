// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"strings"
)

const (
	xattrHeader = 12 // struct erofs_xattr_ibody_header without shared attributes
	// MaxXattrValue is what a value's 16-bit size can say, one less than the kernel's XATTR_SIZE_MAX.
	MaxXattrValue = 1<<16 - 1
	// MaxXattrBytes is what an inode's 16-bit count of attribute bytes can say.
	MaxXattrBytes = xattrHeader + 4*(1<<16-2)
)

// Xattr is one extended attribute: a namespace of the format, the rest of the name, the value.
type Xattr struct {
	Space byte
	Name  string
	Value []byte
}

// Namespace splits an attribute's name. ok is false when the format cannot hold it.
func Namespace(name string) (space byte, rest string, ok bool) {
	switch name { // whole names
	case "system.posix_acl_access":
		return 2, "", true
	case "system.posix_acl_default":
		return 3, "", true
	}
	for _, s := range []struct {
		prefix string
		space  byte
	}{{"user.", 1}, {"trusted.", 4}, {"security.", 6}} {
		if rest, ok := strings.CutPrefix(name, s.prefix); ok {
			return s.space, rest, true
		}
	}
	return 0, "", false
}

// XattrBytes is what attributes take, with their header: at most MaxXattrBytes can be written.
func XattrBytes(list []Xattr) int64 { return xattrBytes(list) }

func xattrBytes(list []Xattr) int64 {
	if len(list) == 0 {
		return 0
	}
	n := int64(xattrHeader)
	for _, x := range list {
		n += int64(4+len(x.Name)+len(x.Value)+3) &^ 3
	}
	return n
}

// xattrCount is i_xattr_icount: 0 for none, 1 for the header alone, one more for each 4 bytes behind it.
func xattrCount(bytes int64) uint16 {
	if bytes == 0 {
		return 0
	}
	return uint16(1 + (bytes-xattrHeader)/4)
}

func appendXattrs(b []byte, list []Xattr) []byte {
	b = append(b, make([]byte, xattrHeader)...)
	for _, x := range list {
		b = append(b, byte(len(x.Name)), x.Space)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(x.Value)))
		b = append(b, x.Name...)
		b = append(b, x.Value...)
		b = append(b, make([]byte, -(4+len(x.Name)+len(x.Value))&3)...)
	}
	return b
}
