// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// SerialPrefix introduces a disk that is found by its serial number, as the virtual machine monitor gives it.
const SerialPrefix = "serial:"

// maxSerial is the length of a virtio disk's serial number in bytes (virtio 1.2, 5.2.6).
const maxSerial = 20

// Scratch is the disk on which layers, containers' files and emptyDirs lie, under a key that ends with the guest.
// Without it they lie in the guest's memory.
type Scratch struct {
	// Device is an absolute path, as /dev/vdb, or serial:SERIAL. The whole disk is used and its content lost.
	Device string `toml:"device"`
	// Cipher and Integrity are "aes-xts-plain64" with "hmac(sha256)", or "aegis128-random" with "aead".
	Cipher    string `toml:"cipher"`
	Integrity string `toml:"integrity"`
	// MinSize is in bytes: a smaller disk is an error at the start and not when it is full. 0 takes any.
	MinSize int64 `toml:"min_size"`
}

// check wants all or nothing, and no encryption without integrity.
func (s Scratch) check() error {
	switch {
	case s == Scratch{}:
		return nil
	case s.MinSize < 0:
		return fmt.Errorf("scratch.min_size %d: want none below 0", s.MinSize)
	case s.Cipher == "aes-xts-plain64" && s.Integrity == "hmac(sha256)", s.Cipher == "aegis128-random" && s.Integrity == "aead":
		return checkDevice("scratch.device", s.Device)
	case s.Cipher == "" || s.Integrity == "":
		return errors.New("scratch.cipher and scratch.integrity: want both")
	}
	return fmt.Errorf(`scratch.cipher %q with scratch.integrity %q: want "aes-xts-plain64" with "hmac(sha256)", or "aegis128-random" with "aead"`, s.Cipher, s.Integrity)
}

// checkDevice takes the two ways in which a disk is named.
func checkDevice(key, device string) error {
	if serial, ok := strings.CutPrefix(device, SerialPrefix); ok {
		if serial == "" || len(serial) > maxSerial || strings.ContainsAny(serial, " \t\n\x00") {
			return fmt.Errorf("%s %q: want a serial number of 1 to %d bytes", key, device, maxSerial)
		}
		return nil
	}
	if !strings.HasPrefix(device, "/dev/") || path.Clean(device) != device {
		return fmt.Errorf("%s %q: want /dev/NAME or %sSERIAL", key, device, SerialPrefix)
	}
	return nil
}
