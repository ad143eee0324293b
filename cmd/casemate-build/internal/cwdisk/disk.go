// SPDX-License-Identifier: Apache-2.0

package cwdisk

import (
	"context"
	"crypto/aes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/xts"

	"github.com/casemate/casemate/storage/krun"
	"github.com/casemate/casemate/storage/luks"
	"github.com/casemate/casemate/verity"
)

// Options says what a disk is made of.
type Options struct {
	Root        string // the directory that becomes the root file system
	ImageConfig string // file with the whole OCI image config; empty: Root has it as ConfigName
	Slop        int    // percent of room that is left, where the file system is written to
	Trailer     krun.Trailer
	Passphrase  []byte // the caller clears it
	Verity      bool   // casemate's form
}

// Result is what a disk's guest is told.
type Result struct {
	Size int64       // bytes
	Pin  *verity.Pin // nil for the form of buildah
}

const (
	// iterations slow a guess at a passphrase that somebody has thought of, and cost an opener a tenth of a second.
	iterations = 200_000
	chunk      = 1 << 20
	diskMode   = 0o600
)

// Write makes the disk out, a new file of mode 0600. On error there is none.
func Write(ctx context.Context, out string, o Options) (Result, error) {
	r, err := write(ctx, out, o)
	if err != nil {
		return Result{}, fmt.Errorf("writing disk %s: %w", out, err)
	}
	return r, nil
}

func write(ctx context.Context, out string, o Options) (r Result, err error) {
	if o.Slop < 0 || o.Slop > 10_000 {
		return r, fmt.Errorf("slop of %d percent, want 0 to 10000", o.Slop)
	}
	end, err := krun.Encode(o.Trailer)
	if err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+"-") // the plaintext is for its owner alone
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image := filepath.Join(dir, "image")
	var size int64
	if !o.Verity {
		if size, err = makeExt4(ctx, o, image); err != nil {
			return r, err
		}
	}
	plain, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, diskMode)
	if err != nil {
		return r, err
	}
	defer plain.Close()
	if o.Verity {
		if size, err = makeReadOnly(ctx, o, plain); err != nil {
			return r, err
		}
		if r.Pin, size, err = addTree(ctx, plain, size); err != nil {
			return r, err
		}
	}
	disk, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, diskMode)
	if err != nil {
		return r, err
	}
	defer func() {
		if err = errors.Join(err, disk.Close()); err != nil {
			err = errors.Join(err, os.Remove(out))
		}
	}()
	r.Size, err = seal(ctx, disk, plain, size, end, o)
	return r, err
}

// addTree appends the tree over all of a file system to it. The salt is made of the content, so that the same files have
// the same pin.
func addTree(ctx context.Context, image *os.File, size int64) (*verity.Pin, int64, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(image, 0, size)); err != nil {
		return nil, 0, err
	}
	salt := sum.Sum(nil)
	p := verity.Params{
		HashType: 1, Algorithm: "sha256", Salt: salt, DataBlockSize: blockSize, HashBlockSize: blockSize,
		DataBlocks: uint64(size / blockSize), HashOffset: uint64(size), //nolint:gosec // positive
	}
	root, err := verity.Build(ctx, image, image, p)
	if err != nil {
		return nil, 0, err
	}
	end, err := image.Seek(0, io.SeekEnd)
	return &verity.Pin{Params: p, RootHash: root}, end, err
}

// seal writes header, encrypted image and trailer, and returns the disk's size.
func seal(ctx context.Context, disk *os.File, plain io.ReaderAt, size int64, end []byte, o Options) (int64, error) {
	offset := int64(luks.LUKS1Offset)
	if o.Verity {
		offset = luks.DefaultOffset
	}
	whole := (offset + size + int64(len(end)) + blockSize - 1) / blockSize * blockSize
	if err := disk.Truncate(whole); err != nil {
		return 0, err
	}
	v, err := header(disk, o)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	if err := encrypt(ctx, v, disk, plain, size); err != nil {
		return 0, err
	}
	if _, err := disk.WriteAt(end, whole-int64(len(end))); err != nil {
		return 0, err
	}
	return whole, disk.Sync()
}

func header(disk *os.File, o Options) (*luks.Volume, error) {
	if !o.Verity {
		return luks.CreateLUKS1(disk, o.Passphrase, iterations)
	}
	return luks.Create(disk, VerityLayout(), o.Passphrase, luks.Cost{KDF: luks.KDFPBKDF2, Iterations: iterations})
}

// VerityLayout is the one layout of casemate's form.
func VerityLayout() luks.Layout {
	return luks.Layout{Type: luks.TypeLUKS2, Cipher: luks.CipherAESXTS, SectorSize: blockSize, Offset: luks.DefaultOffset}
}

// encrypt puts the image behind the header. The IV is the number of the first 512 bytes of a sector, as dm-crypt's plain64
// counts.
func encrypt(ctx context.Context, v *luks.Volume, disk io.WriterAt, plain io.ReaderAt, size int64) error {
	cipher, err := xts.NewCipher(aes.NewCipher, v.Key)
	if err != nil {
		return err
	}
	b := make([]byte, chunk)
	defer clear(b)
	for at := int64(0); at < size; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := b[:min(chunk, size-at)]
		if n, err := plain.ReadAt(part, at); n < len(part) {
			return fmt.Errorf("reading the file system at %d: %w", at, err)
		}
		for i := 0; i < len(part); i += v.SectorSize {
			sector := part[i : i+v.SectorSize]
			cipher.Encrypt(sector, sector, uint64(at+int64(i))/512) //nolint:gosec // positive
		}
		if _, err := disk.WriteAt(part, int64(v.Offset)+at); err != nil { //nolint:gosec // a constant
			return err
		}
	}
	return nil
}
