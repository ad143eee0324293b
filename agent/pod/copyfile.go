// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	maxCopied = 64 << 20 // bytes of one file
	// maxCopyDepth bounds the directories of one path.
	maxCopyDepth = 16
	// copySuffix marks a file whose last piece has not come.
	copySuffix = ".casemate-part"
)

// copyFile takes a file, directory or symbolic link of the host into the directory
// that containers' mounts come from, and nowhere else. The path is walked without
// following a link; links are only made inside of a copied tree and only point
// inside of it. A file appears under its name when its last piece is there.
func (s *Service) copyFile(_ context.Context, req *kata.CopyFileRequest) (*emptypb.Empty, error) {
	c, err := s.planCopy(req)
	if err != nil {
		return nil, err
	}
	s.volumesMu.Lock()
	defer s.volumesMu.Unlock()
	if err := s.freeForCopies(c.tree); err != nil {
		return nil, err
	}
	parent, err := c.openParent()
	if err != nil {
		return nil, copyError(req, err)
	}
	defer unix.Close(parent)
	if err := c.make(parent); err != nil {
		return nil, copyError(req, err)
	}
	s.trees[c.tree] = true
	return &emptypb.Empty{}, nil
}

// copyTo is a request that has been checked.
type copyTo struct {
	root  string
	tree  string   // what containers mount of it
	parts []string // of the path below root; the last is the new name
	req   *kata.CopyFileRequest
}

func (s *Service) planCopy(req *kata.CopyFileRequest) (*copyTo, error) {
	refused := func(why string) error {
		return fail(codes.PermissionDenied, "CopyFileRequest is blocked by policy: %s", why)
	}
	c := &copyTo{root: s.shared(), req: req}
	rest, ok := strings.CutPrefix(req.GetPath(), c.root+"/")
	if !ok {
		return nil, refused("copy-path: only " + c.root + " takes copies")
	}
	c.parts = strings.Split(rest, "/")
	tree, below := copyRoot(c.parts)
	c.tree = tree
	if len(c.parts) > maxCopyDepth {
		return nil, refused("copy-path: too many directories")
	}
	for _, p := range c.parts {
		if p == "" || p == "." || p == ".." || len(p) > 255 || strings.ContainsRune(p, 0) || strings.HasSuffix(p, copySuffix) {
			return nil, refused("copy-path: " + quoted(p) + " is no name")
		}
	}
	if req.GetUid() < 0 || req.GetGid() < 0 || req.GetOffset() < 0 || req.GetFileSize() < 0 ||
		req.GetOffset()+int64(len(req.GetData())) > maxCopied || req.GetFileSize() > maxCopied {
		return nil, fail(codes.InvalidArgument, "copy of %d bytes at %d of %d: at most %d", len(req.GetData()), req.GetOffset(), req.GetFileSize(), maxCopied)
	}
	switch req.GetFileMode() & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
	case unix.S_IFLNK:
		if len(below) == 0 {
			return nil, refused("copy-link: a link at the top could be mounted")
		}
		if !stays(string(req.GetData())) {
			return nil, refused("copy-link: it leads out of its directory")
		}
	default:
		return nil, refused("copy-type: neither a file, a directory nor a link")
	}
	return c, nil
}

// stays reports whether a link's target is relative and goes down only.
func stays(target string) bool {
	if target == "" || len(target) > 4095 || strings.HasPrefix(target, "/") || strings.ContainsRune(target, 0) {
		return false
	}
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." {
			return false
		}
	}
	return true
}

// openParent opens the directory that the name goes into, making what is missing,
// without following a link on the way.
func (c *copyTo) openParent() (int, error) {
	fd, err := unix.Open(c.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	mode := c.req.GetDirMode() & 0o777
	if mode == 0 {
		mode = 0o755
	}
	for i, part := range c.parts[:len(c.parts)-1] {
		made := unix.Mkdirat(fd, part, mode)
		if made != nil && !errors.Is(made, unix.EEXIST) {
			unix.Close(fd)
			return -1, made
		}
		next, err := beneath(fd, part, unix.O_PATH|unix.O_DIRECTORY)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
		if made == nil && i == len(c.parts)-2 {
			if err := unix.Fchownat(fd, "", int(c.req.GetUid()), int(c.req.GetGid()), unix.AT_EMPTY_PATH); err != nil {
				unix.Close(fd)
				return -1, err
			}
		}
	}
	return fd, nil
}

// beneath opens name in dir; it must not be a link.
func beneath(dir int, name string, flags uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC, // O_NOFOLLOW would make a link an ENOTDIR
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func (c *copyTo) make(parent int) error {
	name := c.parts[len(c.parts)-1]
	switch c.req.GetFileMode() & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.makeDir(parent, name)
	case unix.S_IFLNK:
		return c.makeLink(parent, name)
	}
	return c.makeFile(parent, name)
}

func (c *copyTo) makeDir(parent int, name string) error {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := beneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(unix.Fchown(fd, int(c.req.GetUid()), int(c.req.GetGid())), unix.Fchmod(fd, c.req.GetFileMode()&0o777))
}

// makeLink replaces a link or file of that name in one step, so that a volume's
// ..data never points nowhere.
func (c *copyTo) makeLink(parent int, name string) error {
	temporary := name + copySuffix
	if err := unix.Unlinkat(parent, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := unix.Symlinkat(string(c.req.GetData()), parent, temporary); err != nil {
		return err
	}
	err := unix.Fchownat(parent, temporary, int(c.req.GetUid()), int(c.req.GetGid()), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Renameat(parent, temporary, parent, name)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(parent, temporary, 0))
	}
	return nil
}

// makeFile writes one piece. The first, at offset 0, starts over.
func (c *copyTo) makeFile(parent int, name string) error {
	temporary := name + copySuffix
	f, err := c.openPart(parent, temporary)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(c.req.GetData(), c.req.GetOffset()); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() < c.req.GetFileSize() {
		return err
	}
	if info.Size() > c.req.GetFileSize() {
		return errors.Join(fmt.Errorf("%w: %d bytes for a file of %d", unix.EFBIG, info.Size(), c.req.GetFileSize()), unix.Unlinkat(parent, temporary, 0))
	}
	// No setuid or setgid bits: whoever owns the file, the host wrote it.
	if err := errors.Join(f.Chown(int(c.req.GetUid()), int(c.req.GetGid())), f.Chmod(os.FileMode(c.req.GetFileMode()&0o777))); err != nil {
		return err
	}
	return unix.Renameat(parent, temporary, parent, name)
}

// openPart makes the file of the first piece and finds it for the others.
func (c *copyTo) openPart(parent int, name string) (*os.File, error) {
	if c.req.GetOffset() > 0 {
		return openRegular(parent, name, unix.O_WRONLY)
	}
	if err := unix.Unlinkat(parent, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyError tells the host which of its own doings stood in the way.
func copyError(req *kata.CopyFileRequest, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return fail(codes.PermissionDenied, "CopyFileRequest is blocked by policy: copy-path: %s leads through a link", quoted(req.GetPath()))
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EFBIG), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, errNotRegular):
		return fail(codes.FailedPrecondition, "copying to %s contradicts what is there", quoted(req.GetPath()))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fail(codes.ResourceExhausted, "no space for copies")
	}
	return fmt.Errorf("copying a file: %w", err)
}
