// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Where the kernel's own file systems go; other parts of casemate rely on the usual places.
const (
	procPath     = "/proc"
	cgroupPath   = "/sys/fs/cgroup"
	securityPath = "/sys/kernel/security"
)

// mount is one row of the mount table.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	mode                   fs.FileMode // of the mount point, when it has to be made
	optional               bool        // the guest works without it
}

const (
	inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	plain = unix.MS_NOSUID | unix.MS_NODEV
)

// procMount comes before everything else: the clean start and the seal need it.
func procMount() mount {
	return mount{source: "proc", target: procPath, fstype: "proc", flags: inert, mode: 0o555}
}

// kernelMounts are the kernel's view of the machine.
func kernelMounts() []mount {
	return []mount{
		procMount(),
		{source: "sysfs", target: "/sys", fstype: "sysfs", flags: inert, mode: 0o555},
		{source: "devtmpfs", target: "/dev", fstype: "devtmpfs", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0755", mode: 0o755},
	}
}

// earlyMounts need no kernel module. Only /run allows execution: container root file systems live there.
func earlyMounts() []mount {
	return append(kernelMounts(), []mount{
		{source: "devpts", target: "/dev/pts", fstype: "devpts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "ptmxmode=0666,mode=0620,gid=5", mode: 0o755},
		{source: "shm", target: "/dev/shm", fstype: "tmpfs", flags: inert, data: "mode=1777,size=25%", mode: 0o755},
		{source: "run", target: "/run", fstype: "tmpfs", flags: plain, data: "mode=0755,size=50%", mode: 0o755},
		{source: "tmp", target: "/tmp", fstype: "tmpfs", flags: inert, data: "mode=1777,size=25%", mode: 0o755},
		{source: "cgroup2", target: cgroupPath, fstype: "cgroup2", flags: inert, data: "nsdelegate,memory_recursiveprot"},
	}...)
}

// lateMounts may need a module of the list.
func lateMounts() []mount {
	return []mount{
		{source: "securityfs", target: securityPath, fstype: "securityfs", flags: inert, optional: true},
		{source: "configfs", target: "/sys/kernel/config", fstype: "configfs", flags: inert, optional: true},
	}
}

// deviceLinks are the names in /dev that programs expect and devtmpfs does not make.
func deviceLinks() map[string]string {
	return map[string]string{
		"/dev/fd":     "/proc/self/fd",
		"/dev/stdin":  "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2",
	}
}

// mountAll mounts the table in order and returns the targets of optional rows that this kernel does not have.
func mountAll(table []mount) (absent []string, err error) {
	for _, m := range table {
		err := m.mount()
		switch {
		case err == nil:
		case m.optional && (errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist)):
			absent = append(absent, m.target)
		default:
			return absent, err
		}
	}
	return absent, nil
}

func (m mount) mount() error {
	if m.mode != 0 {
		if err := os.Mkdir(m.target, m.mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making mount point %s: %w", m.target, err)
		}
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

func linkDevices() error {
	for name, target := range deviceLinks() {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking %s: %w", name, err)
		}
	}
	return nil
}
