// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// source is where the documents and blobs of one repository come from. Nothing
// that it returns is verified.
type source interface {
	// root returns the bytes that the reference itself names and, when the
	// source knows it beforehand, their expected digest.
	root(ctx context.Context) (raw []byte, want *v1.Hash, err error)
	// document returns a manifest or index by digest, at most maxDocument bytes.
	document(ctx context.Context, digest v1.Hash) ([]byte, error)
	// tagged returns a manifest by a tag of the same repository.
	tagged(ctx context.Context, tag string) ([]byte, error)
	// referrers returns the index of the manifests that refer to digest, or
	// ErrNotFound where the source has no such index.
	referrers(ctx context.Context, digest v1.Hash) ([]byte, error)
	// blob opens a blob at offset. start is the position of the first byte that
	// the reader yields: offset, or 0 when the source cannot seek. length is the
	// number of bytes it announces, -1 when unknown.
	blob(ctx context.Context, digest v1.Hash, offset int64) (r io.ReadCloser, start, length int64, err error)
}
