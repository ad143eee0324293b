// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayOptions are the same whatever the kernel was built with. Redirects and
// metadata-only copies let one entry of a layer stand for another; layers never
// need them.
var overlayOptions = [...][2]string{{"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}}

// Mount mounts the image's merged tree on the existing directory target, without
// device nodes. Writes go to upper, an empty directory; work is an empty
// directory beside it, on the same filesystem. Unmount with Unmount.
func (img *Image) Mount(target, upper, work string) error {
	err := mountOverlay(img.lower, target, upper, work)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		err = mountOverlayString(img.lower, target, upper, work)
	}
	if err != nil {
		return fmt.Errorf("mounting overlay on %s: %w", target, err)
	}
	if err := restoreDirectories(target, img.layers); err != nil {
		return errors.Join(fmt.Errorf("completing the tree on %s: %w", target, err), Unmount(target))
	}
	return nil
}

// Unmount takes away what Mount mounted on target. It waits for nothing: a tree
// that is still in use disappears when its last user does.
func Unmount(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmounting %s: %w", target, err)
	}
	return nil
}

// mountOverlay uses the mount API of Linux 5.2 with lowerdir+ of 6.8, which has
// no limit on the length of the layers' names.
func mountOverlay(lower []string, target, upper, work string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	options := [][2]string{{"source", "overlay"}}
	options = append(options, overlayOptions[:]...)
	for _, dir := range slices.Backward(lower) { // topmost first
		options = append(options, [2]string{"lowerdir+", dir})
	}
	options = append(options, [2]string{"upperdir", upper}, [2]string{"workdir", work})
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return fmt.Errorf("setting %s to %s: %w%s", o[0], o[1], err, mountLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("creating: %w%s", err, mountLog(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mountLog reads what the kernel has to say about a failed step.
func mountLog(fs int) string {
	buf := make([]byte, 512)
	n, err := unix.Read(fs, buf)
	if err != nil || n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%q)", bytes.TrimSpace(buf[:n]))
}

// mountOverlayString serves older kernels, whose options are one page of text.
// File descriptors keep it short, about 180 layers, and free of escapes.
func mountOverlayString(lower []string, target, upper, work string) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	name := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("opening %s: %w", dir, err)
		}
		open = append(open, os.NewFile(uintptr(fd), dir))
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	var names []string
	for _, dir := range append(slices.Clone(lower), upper, work) {
		n, err := name(dir)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	layers := names[:len(lower)]
	slices.Reverse(layers)
	options := []string{"lowerdir=" + strings.Join(layers, ":"), "upperdir=" + names[len(lower)], "workdir=" + names[len(lower)+1]}
	for _, o := range overlayOptions {
		options = append(options, o[0]+"="+o[1])
	}
	return unix.Mount("overlay", target, "overlay", unix.MS_NODEV, strings.Join(options, ","))
}
