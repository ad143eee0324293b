// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack/erofs"
)

// mountImageFile mounts an image without a block device, which the kernel does
// from Linux 6.12 on, for files on most filesystems (not on tmpfs).
func mountImageFile(file, target string) error { return MountErofs(file, target) }

// mountImageLoop mounts an image as a loop device, which goes with the mount.
func mountImageLoop(file, target string) error {
	device, err := AttachLoop(file)
	if err != nil {
		return err
	}
	return errors.Join(MountErofs(device.Name(), target), device.Close())
}

// MountErofs mounts a device or file with an EROFS image read-only on the existing
// directory target. What the tree may be used for is up to the mount of the overlay
// over it; this one is not to be used at all. The kernel parses what is in the image:
// it must be of this program's making or bound to something that the owner signed.
func MountErofs(source, target string) error {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening erofs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return fmt.Errorf("setting source to %s: %w%s", source, err, mountLog(fs))
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return fmt.Errorf("setting ro: %w%s", err, mountLog(fs))
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("opening %s as erofs: %w%s", source, err, mountLog(fs))
	}
	const flags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, flags)
	if err != nil {
		return fmt.Errorf("mounting %s: %w", source, err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting on %s: %w", target, err)
	}
	return nil
}

// probeImages finds out how the kernel mounts images that lie below dir, and
// whether it then shows and obeys all that one may hold.
func probeImages(dir string) (images, error) {
	home, err := os.MkdirTemp(dir, "probe")
	if err != nil {
		return images{}, err
	}
	defer os.RemoveAll(home)
	if err := writeProbe(filepath.Join(home, imageFile)); err != nil {
		return images{}, err
	}
	if err := os.Mkdir(filepath.Join(home, imageTree), 0o700); err != nil {
		return images{}, err
	}
	var errs []error
	for _, k := range []images{{loop: false}, {loop: true}} {
		tree, err := k.open(home)
		if err == nil {
			err = errors.Join(checkProbe(tree), k.close(home))
		}
		if err == nil {
			return k, nil
		}
		errs = append(errs, err)
	}
	return images{}, errors.Join(errs...)
}

// What the probe holds: a directory whose ACL lets user 1 write, and a file with
// a capability, whose content is behind the head as in every image.
var (
	probeContent = []byte("probe")
	probeACL     = []byte("\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x01\x00\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff")
	probeCapability = []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
)

const (
	overlayOpaque  = "trusted.overlay.opaque"
	aclAccess      = "system.posix_acl_access"
	fileCapability = "security.capability"
)

func writeProbe(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return fillProbe(f)
}

func fillProbe(f erofs.File) error {
	block := make([]byte, erofs.BlockBytes)
	copy(block, probeContent)
	if _, err := f.WriteAt(block, erofs.HeadBytes); err != nil {
		return err
	}
	attribute := func(name, value string) erofs.Xattr {
		space, rest, _ := erofs.Namespace(name)
		return erofs.Xattr{Space: space, Name: rest, Value: []byte(value)}
	}
	root := &erofs.Inode{Mode: unix.S_IFDIR | 0o755, Extra: &erofs.Extra{Entries: []erofs.Entry{
		{Name: "file", Inode: &erofs.Inode{Mode: unix.S_IFREG | 0o755, Links: 1, Size: int64(len(probeContent)), Data: erofs.HeadBytes,
			Extra: &erofs.Extra{Xattrs: []erofs.Xattr{attribute(fileCapability, string(probeCapability))}}}},
		{Name: "dir", Inode: &erofs.Inode{Mode: unix.S_IFDIR | 0o775,
			Extra: &erofs.Extra{Xattrs: []erofs.Xattr{attribute(overlayOpaque, "y"), attribute(aclAccess, string(probeACL))}}}},
	}}}
	return erofs.Write(f, erofs.HeadBytes+erofs.BlockBytes, root, [16]byte{})
}

// checkProbe reads the mounted probe.
func checkProbe(tree string) error {
	content, err := os.ReadFile(filepath.Join(tree, "file"))
	if err != nil {
		return fmt.Errorf("reading the probe: %w", err)
	}
	if string(content) != string(probeContent) {
		return fmt.Errorf("reading the probe: got %q, want %q", content, probeContent)
	}
	for _, a := range []struct{ name, attribute, want string }{
		{"dir", overlayOpaque, "y"}, {"dir", aclAccess, string(probeACL)}, {"file", fileCapability, string(probeCapability)},
	} {
		value := make([]byte, 128)
		n, err := unix.Lgetxattr(filepath.Join(tree, a.name), a.attribute, value)
		if err != nil {
			return fmt.Errorf("reading %s of the probe: %w", a.attribute, err)
		}
		if string(value[:n]) != a.want {
			return fmt.Errorf("reading %s of the probe: got %x, want %x", a.attribute, value[:n], a.want)
		}
	}
	return nil
}
