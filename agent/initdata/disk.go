// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// diskMagic begins the disk that kata's runtime attaches (kata-containers,
// docs/design/initdata): then a little-endian u64, the number of bytes of the gzip file
// that follows. What comes after those is padding.
const diskMagic = "initdata"

// maxCompressed bounds the gzip file: a document that does not compress, and a header.
const maxCompressed = MaxSize + 64<<10

// OnDisk reports whether r begins as a disk with initdata. It reads 8 bytes.
func OnDisk(r io.ReaderAt) (bool, error) {
	head := make([]byte, len(diskMagic))
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading a disk's head: %w", err)
	}
	return string(head[:n]) == diskMagic, nil
}

// ReadDisk reads the document of a disk that [OnDisk] accepts, at most MaxSize bytes, each
// byte once: a host that answers a second read otherwise is not asked. It does not parse
// the document. Anything but one whole gzip member of the stated length is an error.
func ReadDisk(r io.ReaderAt) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("reading initdata from its disk: %w", err) }
	head := make([]byte, len(diskMagic)+8)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fail(fmt.Errorf("head: %w", err))
	}
	if string(head[:len(diskMagic)]) != diskMagic {
		return fail(fmt.Errorf("it begins with %q, want %q", head[:len(diskMagic)], diskMagic))
	}
	size := binary.LittleEndian.Uint64(head[len(diskMagic):])
	if size == 0 || size > maxCompressed {
		return fail(fmt.Errorf("%d compressed bytes, want 1 to %d", size, maxCompressed))
	}
	compressed := make([]byte, size)
	if _, err := r.ReadAt(compressed, int64(len(head))); err != nil {
		return fail(fmt.Errorf("it ends before its %d compressed bytes: %w", size, err))
	}
	rest := bytes.NewReader(compressed)
	zip, err := gzip.NewReader(rest)
	if err != nil {
		return fail(err)
	}
	zip.Multistream(false)
	raw, err := io.ReadAll(io.LimitReader(zip, MaxSize+1))
	if err != nil {
		return fail(err)
	}
	if len(raw) > MaxSize {
		return fail(fmt.Errorf("more than %d bytes when unpacked", MaxSize))
	}
	if rest.Len() > 0 {
		return fail(fmt.Errorf("%d bytes behind the end of the gzip file", rest.Len()))
	}
	return raw, nil
}

// WriteDisk returns the disk with a document, as kata's runtime makes it: what the
// annotation cc_init_data becomes. Its length is a multiple of 512 bytes.
func WriteDisk(raw []byte) ([]byte, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("writing initdata's disk: %d bytes, at most %d allowed", len(raw), MaxSize)
	}
	var compressed bytes.Buffer
	zip := gzip.NewWriter(&compressed)
	if _, err := zip.Write(raw); err != nil {
		return nil, fmt.Errorf("writing initdata's disk: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("writing initdata's disk: %w", err)
	}
	disk := binary.LittleEndian.AppendUint64([]byte(diskMagic), uint64(compressed.Len()))
	disk = append(disk, compressed.Bytes()...)
	const sector = 512
	return append(disk, make([]byte, (sector-len(disk)%sector)%sector)...), nil
}
