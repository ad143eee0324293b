// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

// throughputSize is what is written and read through each table, in bytes.
const throughputSize = 64 << 20

// throughput times the same writes and reads through our table, with each cipher, and through the one that cryptsetup
// makes by default.
func (b bench) throughput(ctx context.Context) error {
	write, read, err := b.throughScratch(ctx, devmapper.AESXTSHMACSHA256)
	if err != nil {
		return err
	}
	aegisWrite, aegisRead, err := b.throughScratch(ctx, devmapper.AEGIS128)
	if err != nil {
		return err
	}
	err = errors.Join(
		cryptsetup("luksFormat", "--type", "luks2", "--integrity", "hmac-sha256", "--sector-size", "4096", "--integrity-no-wipe", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", b.device, keyFile),
		cryptsetup("open", "--key-file", keyFile, b.device, peerName),
	)
	if err != nil {
		return err
	}
	peerWrite, peerRead, err := through("/dev/mapper/" + peerName)
	if err = errors.Join(err, cryptsetup("close", peerName)); err != nil {
		return err
	}
	for _, line := range []struct {
		name string
		ours time.Duration
		peer time.Duration
	}{{"write", write, peerWrite}, {"read", read, peerRead}, {"aegis-write", aegisWrite, peerWrite}, {"aegis-read", aegisRead, peerRead}} {
		if _, err := fmt.Printf("%s %.3f %.3f\n", line.name, line.ours.Seconds(), line.peer.Seconds()); err != nil {
			return err
		}
	}
	return nil
}

func (b bench) throughScratch(ctx context.Context, cipher devmapper.Cipher) (write, read time.Duration, err error) {
	s, err := storage.OpenScratch(ctx, b.control, b.scratch(cipher))
	if err != nil {
		return 0, 0, err
	}
	write, read, err = through(s.Path)
	return write, read, errors.Join(err, s.Close())
}

// through writes and reads a device in MiBs, past the page cache.
func through(path string) (write, read time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	// Memory of its own pages: O_DIRECT wants whole sectors at both ends.
	block, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Munmap(block) }()
	start := time.Now()
	for at := int64(0); at < throughputSize; at += int64(len(block)) {
		if _, err := f.WriteAt(block, at); err != nil {
			return 0, 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, 0, err
	}
	write = time.Since(start)
	start = time.Now()
	for at := int64(0); at < throughputSize; at += int64(len(block)) {
		if _, err := f.ReadAt(block, at); err != nil {
			return 0, 0, err
		}
	}
	return write, time.Since(start), nil
}
