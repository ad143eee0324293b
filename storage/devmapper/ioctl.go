// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufferSize holds every table and reply of this package: a request names its size, and the kernel says when a
// reply does not fit.
const bufferSize = 16 << 10

// Offsets in struct dm_ioctl, linux/dm-ioctl.h.
const (
	offVersion     = 0
	offDataSize    = 12
	offDataStart   = 16
	offTargetCount = 20
	offFlags       = 28
	offDev         = 40
	offName        = 48
	offUUID        = 176
	headerSize     = unix.SizeofDmIoctl // 312

	nameMax = unix.DM_NAME_LEN - 1 // bytes, a NUL follows
	uuidMax = unix.DM_UUID_LEN - 1
)

// Offsets in struct dm_target_spec.
const (
	offSpecStart  = 0
	offSpecLength = 8
	offSpecNext   = 20
	offSpecType   = 24
	specSize      = unix.SizeofDmTargetSpec // 40
)

// secureData asks the kernel to clear its copy of the request.
const secureData = unix.DM_SECURE_DATA_FLAG

// request builds the header of a call. The caller clears the buffer.
func request(name, uuid string, flags uint32) []byte {
	b := make([]byte, bufferSize)
	e := binary.NativeEndian
	// Version 4.0.0 is what this package relies on; the kernel accepts every minor version up to its own.
	e.PutUint32(b[offVersion:], unix.DM_VERSION_MAJOR)
	e.PutUint32(b[offDataSize:], bufferSize)
	e.PutUint32(b[offDataStart:], headerSize)
	e.PutUint32(b[offFlags:], flags)
	copy(b[offName:offName+nameMax], name)
	copy(b[offUUID:offUUID+uuidMax], uuid)
	return b
}

// putTable writes the targets behind the header, each beginning where the one before ends.
func putTable(b []byte, targets []Target) error {
	e := binary.NativeEndian
	start, off := uint64(0), headerSize
	for i, t := range targets {
		if off+specSize >= len(b) {
			return errLineTooLong
		}
		l := line{buf: b[off+specSize : len(b)-1]} // one byte stays for the NUL
		t.params(&l)
		if l.err != nil {
			return fmt.Errorf("target %d (%s): %w", i, t.kind(), l.err)
		}
		if t.sectors() == 0 || start+t.sectors() < start {
			return fmt.Errorf("target %d (%s): length %d sectors", i, t.kind(), t.sectors())
		}
		next := (specSize + l.n + 1 + 7) &^ 7
		spec := b[off:]
		e.PutUint64(spec[offSpecStart:], start)
		e.PutUint64(spec[offSpecLength:], t.sectors())
		e.PutUint32(spec[offSpecNext:], uint32(next))
		copy(spec[offSpecType:specSize-1], t.kind())
		start += t.sectors()
		off += next
	}
	e.PutUint32(b[offTargetCount:], uint32(len(targets)))
	return nil
}

var errReply = errors.New("the kernel's reply is out of form")

// replyData checks a reply's header and returns its data.
func replyData(b []byte) ([]byte, error) {
	e := binary.NativeEndian
	if len(b) < headerSize {
		return nil, errReply
	}
	if e.Uint32(b[offFlags:])&unix.DM_BUFFER_FULL_FLAG != 0 {
		return nil, fmt.Errorf("the kernel's reply exceeds %d bytes", bufferSize)
	}
	start, size := e.Uint32(b[offDataStart:]), e.Uint32(b[offDataSize:])
	if start < headerSize || start > size || uint64(size) > uint64(len(b)) {
		return nil, errReply
	}
	return b[start:size], nil
}

// parseStatus reads the reply of DM_TABLE_STATUS.
func parseStatus(b []byte) ([]TargetStatus, error) {
	data, err := replyData(b)
	if err != nil {
		return nil, err
	}
	e := binary.NativeEndian
	var list []TargetStatus
	off := uint32(0)
	for range e.Uint32(b[offTargetCount:]) {
		if uint64(off)+specSize > uint64(len(data)) {
			return nil, errReply
		}
		spec := data[off:]
		info, ok := cString(spec[specSize:])
		kind, ok2 := cString(spec[offSpecType:specSize])
		if !ok || !ok2 {
			return nil, errReply
		}
		list = append(list, TargetStatus{
			Kind:          kind,
			StartSector:   e.Uint64(spec[offSpecStart:]),
			LengthSectors: e.Uint64(spec[offSpecLength:]),
			Info:          info,
		})
		// In replies, next counts from the start of the data, not from this structure. The last one points behind
		// its padding, which the size of the data does not count.
		next := e.Uint32(spec[offSpecNext:])
		if next <= off {
			return nil, errReply
		}
		off = next
	}
	return list, nil
}

// Offsets in struct dm_target_versions: next, then three numbers, then the name.
const (
	offVersionsNumbers = 4
	offVersionsName    = 16
)

// parseVersions reads the reply of DM_LIST_VERSIONS.
func parseVersions(b []byte) ([]TargetVersion, error) {
	data, err := replyData(b)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	e := binary.NativeEndian
	var list []TargetVersion
	for {
		if len(data) < offVersionsName {
			return nil, errReply
		}
		name, ok := cString(data[offVersionsName:])
		if !ok {
			return nil, errReply
		}
		v := TargetVersion{Kind: name}
		for i := range v.Version {
			v.Version[i] = e.Uint32(data[offVersionsNumbers+4*i:])
		}
		list = append(list, v)
		next := e.Uint32(data)
		if next == 0 {
			return list, nil
		}
		if next < offVersionsName || uint64(next) > uint64(len(data)) {
			return nil, errReply
		}
		data = data[next:]
	}
}

// cString returns the bytes before the first NUL.
func cString(b []byte) (string, bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", false
	}
	return string(b[:i]), true
}

// doIoctl is the system call itself.
func doIoctl(fd uintptr, req uintptr, b []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return errno
	}
	return nil
}
