// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"io"
	"time"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/ext4"
)

const (
	// scratchFS: whoever loses power loses the key too, so a journal would protect nothing; and nobody but root writes
	// where reserved blocks would help.
	scratchFS = "-O ^has_journal -m 0"
	// sizedFS has inodes for files of 16 KiB, whatever its size: storage.MountSized counts on what they take.
	sizedFS = scratchFS + " -i 16384"
	// emptyDirFS is what kata's agent asks for.
	emptyDirFS = "-O ^has_journal -m 0 -i 163840 -I 128"
	// volumeFS is what mkfs.ext4 makes when it is told nothing.
	volumeFS = ""
)

// newExt4 makes ext4 as mkfs.ext4 does with these arguments, of which storage/ext4 takes a closed list.
func newExt4(mkfsOpts string) (storage.Formatter, error) {
	m, err := ext4With(mkfsOpts)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func ext4With(mkfsOpts string) (ext4Maker, error) {
	o, err := ext4.ParseOptions(mkfsOpts)
	if err != nil {
		return ext4Maker{}, err
	}
	rand.Read(o.UUID[:])                                            // never fails
	o.UUID[6], o.UUID[8] = 0x40|o.UUID[6]&0x0f, 0x80|o.UUID[8]&0x3f // RFC 9562, version 4
	o.Now = time.Now()
	return ext4Maker{o}, nil
}

// volumeMaker is the maker of what configuration names as a volume's file system.
func volumeMaker(v config.Volume) (storage.Formatter, error) {
	if v.FS == config.FSNone {
		return storage.Zeros{}, nil
	}
	m, err := ext4With(volumeFS)
	m.options.RootUID, m.options.RootGID = v.UID, v.GID
	return m, err
}

// ext4Maker lays out an empty ext4.
type ext4Maker struct{ options ext4.Options }

// Format makes the file system on the first size bytes of w.
func (m ext4Maker) Format(w io.WriterAt, size int64) error {
	_, err := ext4.Format(w, size, m.options)
	return err
}
