// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxSerialText caps what sysfs says of a disk's serial number, in bytes.
const maxSerialText = 256

// ErrNoDisk is wrapped when no disk has the serial number that is looked for.
var ErrNoDisk = errors.New("no disk has this serial number")

// FindSerial returns the node of the whole disk that has a serial number, of virtio or NVMe disks. Who provides the
// disk chooses the number: it says which disk is meant and proves nothing about it. Two with the same are an error.
func FindSerial(serial string) (string, error) { return findSerial("/sys", "/dev", serial) }

func findSerial(sys, dev, serial string) (string, error) {
	disks, err := os.ReadDir(filepath.Join(sys, "block"))
	if err != nil {
		return "", fmt.Errorf("looking for disk %q: %w", serial, err)
	}
	found := ""
	for _, d := range disks {
		dir := filepath.Join(sys, "block", d.Name())
		if serialOf(filepath.Join(dir, "serial")) != serial && serialOf(filepath.Join(dir, "device", "serial")) != serial {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("looking for disk %q: both %s and %s are it", serial, found, d.Name())
		}
		found = d.Name()
	}
	if found == "" {
		return "", fmt.Errorf("looking for disk %q: %w", serial, ErrNoDisk)
	}
	// The kernel writes / in the name of a node as ! in that of a directory.
	return filepath.Join(dev, strings.ReplaceAll(found, "!", "/")), nil
}

// serialOf returns "" for a disk that has none, which no serial number equals.
func serialOf(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, maxSerialText)
	n, _ := f.Read(b) // one read gives the whole attribute
	return string(bytes.TrimSpace(b[:n]))
}
