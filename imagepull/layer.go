// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/casemate/casemate/imagepull/unpack"
)

// verifiedLayer owns the stream of one layer from the blob's first byte to the
// end of its archive, and every check on the way. Each verdict, of digest, MAC,
// wrapped digest, DiffID and of what stands behind an end marker, can be given
// only at the end of a stream; so the only way to the bytes is unpack, which
// returns nil when all streams have been read to their ends and all verdicts are
// in. Until then what it wrote proves nothing and must have no name.
//
// The stages run beside each other:
//
//	fetch -> open (blob digest, MAC, decrypt, wrapped digest) -> inflate -> hash (DiffID)
//	                                                                     -> unpack
//
// A stage that fails on the bytes it was given stops, but what feeds it runs on
// to its own end: only then is it known whether the bytes were wrong where they
// came from. The error returned is that of the first stage that has one.
type verifiedLayer struct {
	layerDescriptor
	id     layerID
	keeper keeper
	key    *layerKey // nil when the layer is not encrypted
	limit  int64     // of bytes after decompression
	over   Fault     // what it means to exceed limit
	chunks *sync.Pool
	codecs *decompressors
}

// errStopped ends the streams behind a stage whose consumer has failed.
var errStopped = errors.New("nobody reads on")

const (
	stageFetch = iota
	stageOpen
	stageInflate
	stageHash
	stageUnpack
	stages
)

// unpack reads the blob that source opens, which must end by itself after the
// declared size, and has the keeper keep the layer in the existing empty directory
// dir.
func (l *verifiedLayer) unpack(ctx context.Context, source func(context.Context) io.ReadCloser, dir string) (unpack.Stats, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outCtx, stopOutput := context.WithCancelCause(ctx)
	defer stopOutput(nil)

	stored, opened := newStream(), newStream()
	toHash, toUnpack := newStream(), newStream()
	var stats unpack.Stats
	var errs [stages]error
	var wg sync.WaitGroup
	wg.Go(func() { errs[stageFetch] = l.fetch(ctx, source, stored) })
	wg.Go(func() { errs[stageOpen] = l.open(ctx, stored, opened) })
	wg.Go(func() { errs[stageInflate] = l.inflate(outCtx, opened, toHash, toUnpack) })
	wg.Go(func() { errs[stageHash] = l.hash(toHash) })
	wg.Go(func() {
		r := &reader{s: toUnpack}
		stats, errs[stageUnpack] = l.unpackAll(outCtx, dir, r)
		switch err := errs[stageUnpack]; {
		case err != nil && archiveFault(err):
			stopOutput(errStopped)
		case err != nil:
			cancel(err) // this machine's fault: the rest of the blob would not tell more
		}
		r.drain()
	})
	wg.Wait()
	return stats, rootCause(errs)
}

// unpackAll does not believe that an archive is complete before the stream is.
func (l *verifiedLayer) unpackAll(ctx context.Context, dir string, r *reader) (stats unpack.Stats, err error) {
	defer caught(&err)
	stats, err = l.keeper.unpack(ctx, dir, l.id, r)
	if err == nil && r.drain() {
		err = fmt.Errorf("%w: not read to its end", unpack.ErrTrailing)
	}
	return stats, err
}

// caught turns a panic into an error: what parses hostile bytes must not be able
// to end the process, which may be the guest's init.
func caught(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("internal error: %v", v)
	}
}

// archiveFault reports whether the archive's own bytes are to blame.
func archiveFault(err error) bool {
	return errors.Is(err, unpack.ErrFormat) || errors.Is(err, unpack.ErrTruncated) || errors.Is(err, unpack.ErrEscape) ||
		errors.Is(err, unpack.ErrLimit) || errors.Is(err, unpack.ErrTrailing)
}

// rootCause picks the first stage's error; that a stage was told to stop is a
// consequence and counts only when there is nothing else.
func rootCause(errs [stages]error) error {
	var stopped error
	for _, err := range errs {
		switch {
		case err == nil:
		case errors.Is(err, context.Canceled), errors.Is(err, errStopped):
			stopped = errors.Join(stopped, err)
		default:
			return err
		}
	}
	return stopped
}

// fetch moves the blob's bytes into chunks.
func (l *verifiedLayer) fetch(ctx context.Context, source func(context.Context) io.ReadCloser, to *stream) (err error) {
	defer func() { to.end(err) }()
	defer caught(&err)
	blob := source(ctx)
	defer blob.Close()
	for {
		c, err := fill(l.chunks, blob)
		if c != nil {
			if err := to.send(ctx, c); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// open checks the blob's digest and, for an encrypted layer, decrypts the chunks
// in place.
func (l *verifiedLayer) open(ctx context.Context, from, to *stream) (err error) {
	defer func() { from.drain(); to.end(err) }()
	defer caught(&err)
	blobDigest, err := newDigester(l.digest)
	if err != nil {
		return err
	}
	var opener *opener
	if l.key != nil {
		if opener, err = newOpener(l.key, l.compression != plain && l.key.digest == l.id.diffID); err != nil {
			return err
		}
	}
	for c := range from.chunks {
		blobDigest.Write(c.buf)
		if opener != nil {
			opener.open(c.buf)
		}
		if err := to.send(ctx, c); err != nil {
			return err
		}
	}
	if from.err != nil {
		return from.err
	}
	if err := blobDigest.verify(ErrDigest); err != nil {
		return err
	}
	if opener != nil {
		return opener.verify()
	}
	return nil
}

// opener decrypts a layer: AES-256-CTR, and HMAC-SHA256 under the same key over
// the ciphertext (ocicrypt, AES_256_CTR_HMAC_SHA256).
type opener struct {
	stream cipher.Stream
	mac    hash.Hash
	want   [sha256.Size]byte
	inner  *digester // nil when the DiffID stage checks it
}

// newOpener takes the digest that the private options name: that of the blob
// before encryption. An encryptor that compressed the layer on the way names the
// uncompressed one; then it is a DiffID and left to the stage that checks it.
func newOpener(k *layerKey, digestIsDiffID bool) (*opener, error) {
	block, err := aes.NewCipher(k.key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncryption, err)
	}
	o := &opener{stream: cipher.NewCTR(block, k.nonce[:]), mac: hmac.New(sha256.New, k.key), want: k.mac}
	if !digestIsDiffID {
		if o.inner, err = newDigester(k.digest); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *opener) open(buf []byte) {
	o.mac.Write(buf)
	o.stream.XORKeyStream(buf, buf)
	if o.inner != nil {
		o.inner.Write(buf)
	}
}

func (o *opener) verify() error {
	if !hmac.Equal(o.mac.Sum(nil), o.want[:]) {
		return ErrMAC
	}
	if o.inner != nil {
		return o.inner.verify(ErrPlainDigest)
	}
	return nil
}

// inflate turns the opened bytes into the tar stream, for two readers. It stops
// when ctx ends, and reads its input to the end in any case.
func (l *verifiedLayer) inflate(ctx context.Context, from, toHash, toUnpack *stream) (err error) {
	in := &reader{s: from}
	defer func() {
		if in.drain() && err == nil {
			err = fmt.Errorf("%w: bytes behind its end", ErrCompression)
		}
		toHash.end(err)
		toUnpack.end(err)
	}()
	defer caught(&err)
	var tar io.Reader = in
	if l.compression != plain {
		dec, put, err := l.codecs.get(l.compression, in)
		if err != nil {
			return err
		}
		defer put()
		tar = dec
	}
	for total := int64(0); ; {
		c, err := fill(l.chunks, tar)
		if c != nil {
			if total += int64(len(c.buf)); total > l.limit {
				c.release()
				return fmt.Errorf("%w: it unpacks to more than %d MiB", l.over, l.limit/mib)
			}
			c.refs.Store(2)
			if err := toHash.send(ctx, c); err != nil {
				c.release()
				return err
			}
			if err := toUnpack.send(ctx, c); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return compressionError(err)
		}
	}
}

// hash compares the tar stream's digest with the DiffID.
func (l *verifiedLayer) hash(from *stream) (err error) {
	defer from.drain()
	defer caught(&err)
	d, err := newDigester(l.id.diffID)
	if err != nil {
		return err
	}
	for c := range from.chunks {
		d.Write(c.buf)
		c.release()
	}
	if from.err != nil {
		return from.err
	}
	return d.verify(ErrDiffID)
}
