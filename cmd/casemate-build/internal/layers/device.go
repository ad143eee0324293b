// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/imagepull/unpack"
	"github.com/casemate/casemate/imagepull/unpack/erofs"
	"github.com/casemate/casemate/verity"
	"github.com/casemate/casemate/verity/layer"
)

const (
	// dataBlock is the EROFS image's own: a mapping with larger blocks could not be mounted.
	dataBlock = erofs.BlockBytes
	// hashBlock makes the tree a sixteenth of the data.
	hashBlock = 4096
	// maxWindow is what a zstd layer may ask for, as in the guest.
	maxWindow = 8 << 20
	readBytes = 1 << 20
	fileMode  = 0o644 // nothing in a device is secret to the host that hands it over
)

// device is the file of one layer.
type device struct {
	layer.Binding
	file string
	size int64
}

// makeDevice writes the device of one layer into dir, under a name that follows from its DiffID.
func makeDevice(ctx context.Context, source v1.Image, desc v1.Descriptor, diffID v1.Hash, dir string) (d device, err error) {
	f, err := os.CreateTemp(dir, ".layer-")
	if err != nil {
		return device{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	d, err = fill(ctx, f, source, desc, diffID)
	if err = errors.Join(err, f.Chmod(fileMode), f.Close()); err != nil {
		return device{}, err
	}
	d.file = filepath.Join(dir, diffID.Algorithm+"-"+diffID.Hex+".erofs")
	return d, os.Rename(f.Name(), d.file)
}

// fill makes the image, then the tree over it.
func fill(ctx context.Context, f *os.File, source v1.Image, desc v1.Descriptor, diffID v1.Hash) (device, error) {
	raw, err := hex.DecodeString(diffID.Hex)
	if err != nil || len(raw) < sha256.Size || diffID.Algorithm != "sha256" {
		return device{}, fmt.Errorf("DiffID %s: want sha256", diffID)
	}
	var uuid [16]byte
	copy(uuid[:], raw)
	stats, err := unpackInto(ctx, f, source, desc, diffID, uuid)
	if err != nil {
		return device{}, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return device{}, err
	}
	blocks := (size + dataBlock - 1) / dataBlock
	start := (blocks*dataBlock + hashBlock - 1) / hashBlock * hashBlock
	params := verity.Params{
		HashType: 1, Algorithm: "sha256", Salt: raw, DataBlockSize: dataBlock, HashBlockSize: hashBlock,
		DataBlocks: uint64(blocks), HashOffset: uint64(start) + verity.TreeOffset(hashBlock),
	}
	if err := f.Truncate(start); err != nil { // the last block is whole
		return device{}, err
	}
	root, err := verity.Build(ctx, f, f, params)
	if err != nil {
		return device{}, err
	}
	superblock, err := verity.Superblock{UUID: uuid, Params: params}.Encode()
	if err != nil {
		return device{}, err
	}
	if _, err := f.WriteAt(superblock, start); err != nil {
		return device{}, err
	}
	tree, err := params.TreeSize()
	if err != nil {
		return device{}, err
	}
	binding := layer.Binding{Pin: verity.Pin{Params: params, RootHash: root}, Implied: stats.ImpliedDirs, Opaque: stats.RootOpaque}
	return device{Binding: binding, size: int64(params.HashOffset + tree)}, nil
}

// unpackInto makes the EROFS image of a blob that is checked to its last byte, before and behind its compression.
func unpackInto(ctx context.Context, f *os.File, source v1.Image, desc v1.Descriptor, diffID v1.Hash, uuid [16]byte) (unpack.Stats, error) {
	blob, err := image.OpenBlob(source, desc)
	if err != nil {
		return unpack.Stats{}, err
	}
	defer blob.Close()
	stored := bufio.NewReaderSize(image.Verify(blob, desc), readBytes)
	archive, err := decompress(stored, desc)
	if err != nil {
		return unpack.Stats{}, err
	}
	defer archive.Close()
	hash := sha256.New()
	stats, err := unpack.Image(ctx, f, io.TeeReader(archive, hash), uuid, unpack.Limits{})
	if err != nil {
		return stats, err
	}
	if n, err := io.Copy(io.Discard, stored); err != nil || n > 0 {
		return stats, errors.Join(fmt.Errorf("blob %s: %d bytes behind its end", desc.Digest, n), err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != diffID.Hex {
		return stats, fmt.Errorf("the archive has the digest sha256:%s, and the config says %s", got, diffID)
	}
	return stats, nil
}

// decompress opens a blob by its media type, which newPlan has found known.
func decompress(blob *bufio.Reader, desc v1.Descriptor) (io.ReadCloser, error) {
	switch name, _ := image.OCILayerType(desc.MediaType); {
	case strings.HasSuffix(string(name), "+gzip"):
		return gzip.NewReader(blob)
	case strings.HasSuffix(string(name), "+zstd"):
		d, err := zstd.NewReader(blob, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(blob), nil
	}
}
