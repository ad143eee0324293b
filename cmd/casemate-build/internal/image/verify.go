// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Verify passes a blob on and, at its end, compares it with desc: the last Read
// returns an error instead of io.EOF if the size or digest differ. Close says
// nothing about the blob.
func Verify(blob io.ReadCloser, desc v1.Descriptor) io.ReadCloser {
	return &verifiedBlob{ReadCloser: blob, desc: desc, hash: sha256.New()}
}

type verifiedBlob struct {
	io.ReadCloser
	desc v1.Descriptor
	hash hash.Hash
	n    int64
}

func (b *verifiedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.hash.Write(p[:n])
	if b.n > b.desc.Size {
		return 0, fmt.Errorf("blob %s is longer than its %d bytes", b.desc.Digest, b.desc.Size)
	}
	if err != io.EOF {
		return n, err
	}
	if b.n < b.desc.Size {
		return 0, fmt.Errorf("blob %s ends after %d bytes, want %d", b.desc.Digest, b.n, b.desc.Size)
	}
	if got := hex.EncodeToString(b.hash.Sum(nil)); got != b.desc.Digest.Hex {
		return 0, fmt.Errorf("blob has the digest sha256:%s, want %s", got, b.desc.Digest)
	}
	return n, io.EOF
}
