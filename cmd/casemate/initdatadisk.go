// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/initdata"
)

// maxDisks is more than a guest has; the host could show any number.
const maxDisks = 1024

// disks is where a guest's disks are, and how long one may take to appear.
type disks struct {
	block, dev string
	wait       time.Duration
}

// realDisks are the kernel's. Drivers are loaded and disks found while the agent starts.
func realDisks() disks {
	return disks{block: "/sys/class/block", dev: "/dev", wait: 5 * time.Second}
}

const diskPoll = 50 * time.Millisecond

// errNoInitData says that no disk has initdata.
var errNoInitData = errors.New("no disk begins as one with initdata")

// initData reads the one document that the host attached. Where expected is set, the
// launch has bound one, and it is waited for. Two are an error: which of them counts
// would be the host's choice. The disks are looked at once: a disk that appears later is
// not read by anybody.
func (d disks) initData(ctx context.Context, expected bool) ([]byte, error) {
	for end := time.Now().Add(d.wait); ; {
		path, err := d.find()
		if err == nil {
			return readInitDataDisk(path)
		}
		if !expected || !errors.Is(err, errNoInitData) || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(diskPoll):
		}
	}
}

func readInitDataDisk(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := initdata.ReadDisk(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}

// find names the one disk that begins as initdata does. Kata attaches it as a virtio
// block device or a SCSI disk.
func (d disks) find() (found string, err error) {
	entries, err := os.ReadDir(d.block)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for initdata: %w", err)
	}
	if len(entries) > maxDisks {
		return "", fmt.Errorf("looking for initdata: %d block devices, at most %d are looked at", len(entries), maxDisks)
	}
	for _, e := range entries {
		if !d.isDisk(e.Name()) {
			continue
		}
		path := filepath.Join(d.dev, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue // a drive without a medium, or a node that is not there yet
		}
		on, err := initdata.OnDisk(f)
		_ = f.Close() // it was read only
		switch {
		case err != nil || !on:
		case found != "":
			return "", fmt.Errorf("looking for initdata: both %s and %s begin as initdata does", found, path)
		default:
			found = path
		}
	}
	if found == "" {
		return "", errNoInitData
	}
	return found, nil
}

// isDisk reports whether name is a whole disk of one of kata's two kinds.
func (d disks) isDisk(name string) bool {
	if !strings.HasPrefix(name, "vd") && !strings.HasPrefix(name, "sd") {
		return false
	}
	_, err := os.Stat(filepath.Join(d.block, name, "partition"))
	return errors.Is(err, fs.ErrNotExist)
}
