// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaces are files that hold the pod's IPC and UTS namespaces open, and the
// pause container's PID namespace where the pod shares one.
type namespaces struct {
	ipc, uts string
	pid      string // "" unless shared
}

// makeNamespaces makes new ones in dir; hostname is set in the UTS namespace alone.
func makeNamespaces(dir, hostname string) (namespaces, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return namespaces{}, err
	}
	ns := namespaces{ipc: filepath.Join(dir, "ipc"), uts: filepath.Join(dir, "uts")}
	made := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and the namespaces
		// live on in the files.
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
				return fmt.Errorf("unsharing: %w", err)
			}
			if hostname != "" {
				if err := unix.Sethostname([]byte(hostname)); err != nil {
					return fmt.Errorf("setting the host name: %w", err)
				}
			}
			return errors.Join(pin("/proc/thread-self/ns/ipc", ns.ipc), pin("/proc/thread-self/ns/uts", ns.uts))
		}()
	}()
	if err := <-made; err != nil {
		return namespaces{}, errors.Join(fmt.Errorf("making the pod's namespaces: %w", err), ns.close())
	}
	return ns, nil
}

// pin keeps a namespace alive by binding it to a file.
func pin(namespace, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(namespace, file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", namespace, file, err)
	}
	return nil
}

// shared lists them in a spec's form.
func (ns namespaces) shared() []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: ns.ipc}, {Type: specs.UTSNamespace, Path: ns.uts}}
	if ns.pid != "" {
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: ns.pid})
	}
	return list
}

func (ns namespaces) close() error {
	var errs []error
	for _, file := range []string{ns.ipc, ns.uts, ns.pid} {
		if file == "" {
			continue
		}
		// EINVAL: it was never bound.
		if err := unix.Unmount(file, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("releasing namespace %s: %w", file, err))
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
