// SPDX-License-Identifier: Apache-2.0

//go:build root

package ext4

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// strict is a device like one with integrity: a block that was never written cannot be read. FUSE offers it as a
// file, since the machines that run these tests need not have device-mapper.
type strict struct {
	mu      sync.Mutex
	data    []byte
	written []bool  // by block
	refused []int64 // blocks that were read too early
}

// newStrict takes memory for the blocks that are written, not for the size.
func newStrict(t *testing.T, size int64) *strict {
	t.Helper()
	data, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(data); err != nil {
			t.Error(err)
		}
	})
	return &strict{data: data, written: make([]bool, size/blockSize)}
}

// copy is the device as a power cut would leave it.
func (s *strict) copy(t *testing.T) *strict {
	t.Helper()
	c := newStrict(t, int64(len(s.data)))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.written = slices.Clone(s.written)
	for i, written := range s.written {
		if at := i * blockSize; written {
			copy(c.data[at:][:blockSize], s.data[at:])
		}
	}
	return c
}

func (s *strict) WriteAt(b []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at%blockSize != 0 || len(b)%blockSize != 0 || at+int64(len(b)) > int64(len(s.data)) {
		return 0, syscall.EINVAL
	}
	copy(s.data[at:], b)
	for i := at / blockSize; i < (at+int64(len(b)))/blockSize; i++ {
		s.written[i] = true
	}
	return len(b), nil
}

func (s *strict) ReadAt(b []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at >= int64(len(s.data)) {
		return 0, nil
	}
	n := copy(b, s.data[at:])
	for i := at / blockSize; i*blockSize < at+int64(n); i++ {
		if !s.written[i] {
			s.refused = append(s.refused, i)
			return 0, syscall.EIO
		}
	}
	return n, nil
}

// early returns the blocks that were read too early and forgets them.
func (s *strict) early() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.refused
	s.refused = nil
	return list
}

// Numbers of fuse(4) and its structures, from the kernel's include/uapi/linux/fuse.h.
const (
	fuseForget    = 2
	fuseGetattr   = 3
	fuseSetattr   = 4
	fuseOpen      = 14
	fuseRead      = 15
	fuseWrite     = 16
	fuseRelease   = 18
	fuseFsync     = 20
	fuseFlush     = 25
	fuseInit      = 26
	fuseInterrupt = 36
	fuseDestroy   = 38

	fuseInHeader  = 40
	fuseReadWrite = 40 // fuse_read_in and fuse_write_in
	fuseMaxWrite  = 1 << 20
	fuseFlags     = 1<<5 | 1<<22 // FUSE_BIG_WRITES, FUSE_MAX_PAGES
	fuseDirect    = 1            // FOPEN_DIRECT_IO: no cache, no read-ahead
)

// serve mounts the device as one file and returns its path.
func (s *strict) serve(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this kernel has no FUSE: %v", err)
	}
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("strict", path, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, fuseMaxWrite+blockSize)
		for {
			n, err := syscall.Read(fd, buf)
			if err == syscall.EINTR || err == syscall.ENOENT {
				continue
			}
			if err != nil || n < fuseInHeader {
				return // ENODEV: unmounted
			}
			s.reply(fd, buf[:n])
		}
	}()
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Errorf("unmounting the device: %v", err)
			return
		}
		<-done
		syscall.Close(fd)
	})
	return path
}

// reply answers one request of the kernel.
func (s *strict) reply(fd int, request []byte) {
	le := binary.LittleEndian
	opcode, in := le.Uint32(request[4:]), request[fuseInHeader:]
	var out []byte
	var errno syscall.Errno
	switch opcode {
	case fuseForget, fuseInterrupt:
		return
	case fuseInit:
		out = make([]byte, 64)
		le.PutUint32(out[0:], 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[12:], fuseFlags)
		le.PutUint32(out[20:], fuseMaxWrite)
		le.PutUint32(out[24:], 1)
		le.PutUint16(out[28:], fuseMaxWrite/blockSize)
	case fuseGetattr, fuseSetattr:
		out = make([]byte, 104)
		le.PutUint64(out[0:], 3600) // seconds of validity
		le.PutUint64(out[16:], 1)
		le.PutUint64(out[24:], uint64(len(s.data)))
		le.PutUint32(out[76:], syscall.S_IFREG|0o600)
		le.PutUint32(out[80:], 1)
		le.PutUint32(out[96:], blockSize)
	case fuseOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], fuseDirect)
	case fuseRead:
		b := make([]byte, min(le.Uint32(in[16:]), fuseMaxWrite))
		n, err := s.ReadAt(b, int64(le.Uint64(in[8:])))
		if out = b[:n]; err != nil {
			errno = syscall.EIO
		}
	case fuseWrite:
		n, err := s.WriteAt(in[fuseReadWrite:], int64(le.Uint64(in[8:])))
		out = le.AppendUint64(nil, uint64(n))
		if err != nil {
			errno = syscall.EIO
		}
	case fuseRelease, fuseFsync, fuseFlush, fuseDestroy:
	default:
		errno = syscall.ENOSYS
	}
	if errno != 0 {
		out = nil
	}
	header := make([]byte, 16, 16+len(out))
	le.PutUint32(header[0:], uint32(16+len(out)))
	le.PutUint32(header[4:], uint32(-int32(errno)))
	copy(header[8:16], request[8:16])
	// An error means that the request was given up; the kernel does not wait for it.
	_, _ = syscall.Write(fd, append(header, out...))
}
