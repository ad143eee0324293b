// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher waits for devices. It may be used by several goroutines at a time: each wait has a socket of its own.
type Watcher struct {
	sys, dev string
	limit    time.Duration
	listen   func() (source, error)
	// number tells which device a node is.
	number    func(node string) (string, error)
	character func(node string) (uint64, error)
}

// New makes a watcher of this machine's devices. A wait ends after limit.
func New(limit time.Duration) *Watcher {
	return &Watcher{sys: "/sys", dev: "/dev", limit: limit, number: deviceNumber, character: characterDevice, listen: func() (source, error) { return listen() }}
}

// Check is the function of this name.
func (w *Watcher) Check(driver, address string) error { return Check(driver, address) }

// Wait returns the name of the device at an address: the node of a disk, in /dev; the interface's name of [Net]; the
// function's address of [VFIO], DDDD:BB:SS.F. Errors wrap [ErrAddress] for an address of the wrong form and
// [ErrAbsent] where nothing came in time.
func (w *Watcher) Wait(ctx context.Context, driver, address string) (string, error) {
	p, err := parse(driver, address)
	if err != nil {
		return "", err
	}
	asked := false
	name, err := w.Until(ctx, p.subsystem(), func() (string, error) {
		dir, err := p.find(w.sys)
		if errors.Is(err, ErrAbsent) && !asked {
			asked = true
			// Where nobody can be asked the wait ends in err.
			_ = p.rescan(w.sys)
			dir, err = p.find(w.sys)
		}
		if err != nil {
			return "", err
		}
		if p.subsystem() != "block" {
			return filepath.Base(dir), nil
		}
		return w.node(dir)
	})
	if err != nil {
		return "", fmt.Errorf("waiting for %s device %.60q: %w", driver, address, err)
	}
	return name, nil
}

// node returns the node of a whole disk, which must be that disk.
func (w *Watcher) node(dir string) (string, error) {
	if _, err := os.Lstat(filepath.Join(dir, "partition")); err == nil {
		return "", fmt.Errorf("%s is a part of a disk: %w", filepath.Base(dir), ErrAddress)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	node := filepath.Join(w.dev, filepath.Base(dir))
	number, err := w.number(node)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if want := string(bytes.TrimSpace(raw)); number != want {
		return "", fmt.Errorf("%s is device %s and not %s", node, number, want)
	}
	return node, nil
}

// deviceNumber returns a block device's MAJOR:MINOR in decimal.
func deviceNumber(node string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(node, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: node, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is no block device", node)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// Until returns what look finds, and looks again whenever a device of the subsystem ("block", "net", "pci") may have come.
// An error of look's that does not wrap [ErrAbsent] ends the wait at once, the last one that does ends it after the limit.
func (w *Watcher) Until(ctx context.Context, subsystem string, look func() (string, error)) (found string, err error) {
	events, err := w.listen()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, events.close()) }()
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	for {
		found, err := look()
		if !errors.Is(err, ErrAbsent) {
			return found, err
		}
		if waited := events.wait(ctx, subsystem); waited != nil {
			return "", fmt.Errorf("%w, and none came in %v: %w", err, w.limit, waited)
		}
	}
}
