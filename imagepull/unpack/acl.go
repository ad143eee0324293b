// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Tags of POSIX ACL entries (linux/posix_acl.h).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// checkACL reads the value of a system.posix_acl_* attribute as the kernel does when it is set (posix_acl_valid,
// posix_acl_equiv_mode): perm is what it makes of the permission bits, extended whether it says more than they do.
// Without entries it says nothing and perm is not meant.
func checkACL(value []byte) (perm uint32, extended, empty bool, err error) {
	bad := func(what string) (uint32, bool, bool, error) {
		return 0, false, false, fmt.Errorf("%w: POSIX ACL %s", ErrFormat, what)
	}
	if len(value) == 0 {
		return 0, false, true, nil
	}
	if len(value) < 4 || len(value)%8 != 4 || binary.LittleEndian.Uint32(value) != 2 {
		return bad("is not of version 2")
	}
	perms := map[uint16]uint32{}
	last := uint16(0)
	for rest := value[4:]; len(rest) > 0; rest = rest[8:] {
		tag, p, id := binary.LittleEndian.Uint16(rest), binary.LittleEndian.Uint16(rest[2:]), binary.LittleEndian.Uint32(rest[4:])
		named := tag == aclUser || tag == aclGroup
		switch tag {
		case aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther:
		default:
			return bad("has an unknown tag")
		}
		if p > 7 || tag < last || tag == last && !named || named && id == ^uint32(0) {
			return bad("has entries out of order or out of range")
		}
		last, extended = tag, extended || named || tag == aclMask
		perms[tag] = uint32(p)
	}
	if len(value) == 4 {
		return 0, false, true, nil
	}
	_, user := perms[aclUserObj]
	_, group := perms[aclGroupObj]
	_, other := perms[aclOther]
	mask, masked := perms[aclMask]
	_, users := perms[aclUser]
	_, groups := perms[aclGroup]
	if !user || !group || !other || (users || groups) && !masked {
		return bad("lacks an entry")
	}
	if !masked {
		mask = perms[aclGroupObj]
	}
	return perms[aclUserObj]<<6 | mask<<3 | perms[aclOther], extended, false, nil
}

// checkCapability reads the value of security.capability as the kernel does when it is set (cap_convert_nscap):
// revision 2 with 20 bytes, or 3, with a user namespace's root, with 24. It does not look at an empty one.
func checkCapability(value []byte) error {
	const effective = 1
	if len(value) == 0 {
		return nil
	}
	if len(value) >= 4 {
		magic := binary.LittleEndian.Uint32(value) &^ effective
		if len(value) == 20 && magic == 0x02000000 || len(value) == 24 && magic == 0x03000000 {
			return nil
		}
	}
	return fmt.Errorf("setting attribute security.capability to %d bytes: %w", len(value), unix.EINVAL)
}
