// SPDX-License-Identifier: Apache-2.0

//go:build interop || root

package ext4

import (
	"bytes"
	"os"
	"testing"
)

const (
	mib = int64(1) << 20
	gib = mib << 10
	tib = gib << 10
)

// sparse leaves holes where zeros are written, so that the largest sizes fit in memory. It stands on a tmpfs where
// there is one: ext4 itself holds no file of 16 TiB.
type sparse struct{ *os.File }

func newSparse(t *testing.T, size int64) sparse {
	t.Helper()
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "casemate-ext4-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		os.Remove(f.Name())
	})
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return sparse{f}
}

var zeroBlock [blockSize]byte

func (s sparse) WriteAt(b []byte, at int64) (int, error) {
	for i := 0; i < len(b); i += blockSize {
		block := b[i:min(i+blockSize, len(b))]
		if bytes.Equal(block, zeroBlock[:len(block)]) {
			continue
		}
		if _, err := s.File.WriteAt(block, at+int64(i)); err != nil {
			return i, err
		}
	}
	return len(b), nil
}
