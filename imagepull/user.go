// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	// maxAccounts caps the image's passwd and group files.
	maxAccounts = 1 << 20
	// maxID is the largest user and group id; (uid_t)-1 means "unchanged" to
	// the kernel, and a larger number would wrap around to another user.
	maxID = 1<<32 - 2
)

// ResolveUser turns the User of an image config, [USER|UID][:GROUP|GID], into
// numbers, with the passwd and group files below root: never the guest's own. root
// is an absolute directory, which a container may be changing meanwhile.
func ResolveUser(root, spec string) (specs.User, error) {
	passwd, err := readAccounts(root, "etc/passwd")
	if err != nil {
		return specs.User{}, err
	}
	group, err := readAccounts(root, "etc/group")
	if err != nil {
		return specs.User{}, err
	}
	u, err := user.GetExecUser(spec, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return specs.User{}, fmt.Errorf("resolving user %.100q: %w", spec, err)
	}
	var r specs.User
	if r.UID, err = checkID(u.Uid); err == nil {
		r.GID, err = checkID(u.Gid)
	}
	// The primary group stands among the others: a process that changes its
	// primary group must not escape permissions that are denied to this one.
	for _, gid := range append([]int{u.Gid}, u.Sgids...) {
		if err != nil {
			break
		}
		var id uint32
		id, err = checkID(gid)
		if !slices.Contains(r.AdditionalGids, id) {
			r.AdditionalGids = append(r.AdditionalGids, id)
		}
	}
	if err != nil {
		return specs.User{}, fmt.Errorf("resolving user %.100q: %w", spec, err)
	}
	return r, nil
}

func checkID(id int) (uint32, error) {
	if id < 0 || int64(id) > maxID {
		return 0, fmt.Errorf("%w: the image's accounts name the id %d, want 0 to %d", ErrUnsupported, id, int64(maxID))
	}
	return uint32(id), nil
}

// readAccounts reads a file of the image. Links are followed as a process inside
// would follow them, so none leads out of root; an absent file is empty.
func readAccounts(root, path string) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	defer unix.Close(dir)
	// O_NONBLOCK: a FIFO in its place must not stop the guest.
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the image's /%s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: the image's /%s is not a regular file", ErrUnsupported, path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err != nil {
		return nil, fmt.Errorf("reading the image's /%s: %w", path, err)
	}
	if len(raw) > maxAccounts {
		return nil, fmt.Errorf("%w: the image's /%s has more than %d bytes", ErrTooLarge, path, maxAccounts)
	}
	return raw, nil
}
