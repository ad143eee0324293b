// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"

	"github.com/containers/ocicrypt/blockcipher"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	digest "github.com/opencontainers/go-digest"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/keyprovider"
)

// pieceBytes is how much of a layer is in memory at a time.
const pieceBytes = 1 << 20

// spooled is an encrypted layer in a file.
type spooled struct {
	desc v1.Descriptor
	file string
}

// encryptLayer encrypts one blob into a new file of dir. The plain blob is
// checked against desc to its last byte before anything is returned.
func encryptLayer(ctx context.Context, blob io.ReadCloser, desc v1.Descriptor, key Key, dir string) (spooled, error) {
	defer blob.Close()
	handler, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return spooled{}, err
	}
	plain := &contextReader{ctx: ctx, Reader: image.Verify(blob, desc)}
	encrypted, finish, err := handler.Encrypt(plain, blockcipher.AES256CTR)
	if err != nil {
		return spooled{}, err
	}
	s, err := spool(encrypted, dir)
	if err != nil {
		return spooled{}, err
	}
	options, err := finish()
	defer clear(options.Private.SymmetricKey)
	if err != nil {
		return spooled{}, err
	}
	options.Private.Digest = digest.Digest(desc.Digest.String())
	s.desc.Annotations, err = annotations(options, desc.Annotations, key)
	if err != nil {
		return spooled{}, err
	}
	// What else the descriptor says is about the plain blob: an embedded copy
	// of it (data) and places to fetch it from (urls).
	oci, _ := image.OCILayerType(desc.MediaType)
	s.desc.MediaType = oci + types.MediaType(image.EncryptedSuffix)
	return s, nil
}

// fromFile is a layer that was spooled.
func fromFile(s spooled) *image.BuiltLayer {
	return &image.BuiltLayer{Desc: s.desc, Open: func() (io.ReadCloser, error) { return os.Open(s.file) }}
}

// spool writes a blob to a file named by its digest.
func spool(blob io.Reader, dir string) (s spooled, err error) {
	f, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return spooled{}, err
	}
	hash := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(f, hash), blob, make([]byte, pieceBytes))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return spooled{}, err
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	s = spooled{
		desc: v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: sum}, Size: n},
		file: filepath.Join(dir, sum),
	}
	return s, os.Rename(f.Name(), s.file)
}

// annotations are those of the plain layer, the public options and the wrapped
// private ones.
func annotations(options blockcipher.LayerBlockCipherOptions, plain map[string]string, key Key) (map[string]string, error) {
	public, err := json.Marshal(options.Public)
	if err != nil {
		return nil, fmt.Errorf("encoding public layer options: %w", err)
	}
	private, err := json.Marshal(options.Private)
	defer clear(private)
	if err != nil {
		return nil, fmt.Errorf("encoding private layer options: %w", err)
	}
	packet, err := keyprovider.Wrap(key.KEK, key.ID, private)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(plain)
	if all == nil {
		all = make(map[string]string)
	}
	all[pubOptsAnnotation] = base64.StdEncoding.EncodeToString(public)
	all[keyprovider.Annotation] = base64.StdEncoding.EncodeToString(packet)
	return all, nil
}

// contextReader ends a long copy when ctx does: files have no deadlines.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
