// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack"
)

// pieces is a blob that arrives in pieces of a few bytes and ends with err.
type pieces struct {
	io.Reader
	err error
}

func (p pieces) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b[:min(len(b), 1000)])
	if errors.Is(err, io.EOF) && p.err != nil {
		err = p.err
	}
	return n, err
}

func (pieces) Close() error { return nil }

// openLayer runs the pipeline over a layer's blob.
func openLayer(t testing.TB, l testLayer, keys *fakeKeys, change func(*verifiedLayer), end error) (string, error) {
	t.Helper()
	needRoot(t)
	digest, err := parseDigest(l.digest)
	if err != nil {
		t.Fatal(err)
	}
	diffID, err := parseDigest(l.diffID)
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseLayerType(descriptor{mediaType: l.mediaType, digest: digest, size: l.size, annotations: l.annotations})
	if err != nil {
		t.Fatal(err)
	}
	v := verifiedLayer{layerDescriptor: d, id: layerID{diffID: diffID}, keeper: directories{}, limit: 1 << 30, over: ErrExpansion, chunks: newChunkPool(), codecs: new(decompressors)}
	if d.encrypted {
		if v.key, err = unwrapLayerKey(t.Context(), keys, l.annotations); err != nil {
			return "", err
		}
	}
	if change != nil {
		change(&v)
	}
	dir := t.TempDir()
	_, err = v.unpack(t.Context(), func(context.Context) io.ReadCloser {
		return pieces{bytes.NewReader(l.blob), end}
	}, dir)
	return dir, err
}

func TestLayerForms(t *testing.T) {
	tarball := someTar(t)
	twoMembers := append(gzipOf(t, tarball[:1000]), gzipOf(t, tarball[1000:])...)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "meta"...)
	frames := bytes.Join([][]byte{zstdOf(t, tarball[:5000]), skippable, zstdOf(t, tarball[5000:]), skippable}, nil)
	keys := new(fakeKeys)
	// GNU tar pads its archives to 10 KiB, others to more: zeros are no content.
	padded := append(bytes.Clone(tarball), make([]byte, 300<<10)...)
	reusedDigest := func(e *encryption) { e.Digest = digestOf(tarball) }
	for name, l := range map[string]testLayer{
		"plain":                            plainLayer(tarball),
		"gzip":                             gzipLayer(t, tarball),
		"zstd":                             zstdLayer(t, tarball),
		"docker gzip":                      newTestLayer(typeDockerGzip, gzipOf(t, tarball), tarball),
		"gzip of two members":              newTestLayer(typeGzip, twoMembers, tarball),
		"zstd of several frames":           newTestLayer(typeZstd, frames, tarball),
		"encrypted plain":                  plainLayer(tarball).encrypted(t, keys),
		"encrypted gzip":                   gzipLayer(t, tarball).encrypted(t, keys),
		"encrypted zstd":                   zstdLayer(t, tarball).encrypted(t, keys),
		"padded":                           gzipLayer(t, padded),
		"compressed while being encrypted": gzipLayer(t, tarball).encrypted(t, keys, reusedDigest),
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := openLayer(t, l, keys, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, filepath.Join(dir, "etc/motd"), "hello\n")
			wantFile(t, filepath.Join(dir, "data"), strings.Repeat("0123456789abcdef", 64<<10))
		})
	}
}

// flip returns l with one bit of its blob changed and everything said about the
// blob left as it was.
func flip(l testLayer, at int) testLayer {
	l.blob = bytes.Clone(l.blob)
	l.blob[at] ^= 1
	return l
}

// redigest makes the descriptor of a changed blob true again.
func redigest(l testLayer) testLayer {
	l.digest, l.size = digestOf(l.blob), int64(len(l.blob))
	return l
}

// Each way to lie about a layer gives the error of the first check that can see
// it, not of a later stage that stumbles over the consequences.
func TestLayerLies(t *testing.T) {
	keys := new(fakeKeys)
	tarball := someTar(t)
	gz, zs, pl := gzipLayer(t, tarball), zstdLayer(t, tarball), plainLayer(tarball)
	behind := func(l testLayer, extra string) testLayer {
		l.blob = append(bytes.Clone(l.blob), extra...)
		return redigest(l)
	}
	other := func(l testLayer, blob []byte) testLayer {
		l.blob = blob
		return l
	}
	diff := func(l testLayer, tarball []byte) testLayer {
		l.diffID = digestOf(tarball)
		return l
	}
	trailing := append(bytes.Clone(tarball), "x"...)
	late := append(append(bytes.Clone(tarball), make([]byte, 5<<20)...), "x"...)
	otherTar := tarOf(t, entry{name: "evil", body: "evil"})
	for _, tt := range []struct {
		name string
		l    testLayer
		want error
	}{
		{"gzip: first byte flipped", flip(gz, 0), ErrDigest},
		{"gzip: deflate data flipped", flip(gz, len(gz.blob)/2), ErrDigest},
		{"gzip: checksum flipped", flip(gz, len(gz.blob)-5), ErrDigest},
		{"zstd: flipped", flip(zs, len(zs.blob)/2), ErrDigest},
		{"plain: tar header flipped", flip(pl, 0), ErrDigest},
		{"plain: padding at the end flipped", flip(pl, len(pl.blob)-1), ErrDigest},
		{"another valid layer in its place", other(gz, gzipOf(t, otherTar)), ErrDigest},
		{"another valid tar in its place", other(pl, otherTar), ErrDigest},
		{"garbage that is what it says", redigest(other(gz, []byte("garbage, not gzip at all"))), ErrCompression},
		{"garbage that is not what it says", other(gz, []byte("garbage, not gzip at all")), ErrDigest},
		{"empty blob as gzip", redigest(other(gz, nil)), ErrCompression},
		{"gzip cut inside", redigest(other(gz, gz.blob[:len(gz.blob)-9])), ErrCompression},
		{"gzip checksum wrong", redigest(flip(gz, len(gz.blob)-5)), ErrCompression},
		{"gzip: bytes behind", behind(gz, "x"), ErrCompression},
		{"gzip: zeros behind", behind(gz, "\x00\x00\x00\x00"), ErrCompression},
		{"gzip: header behind", behind(gz, "\x1f\x8b\x08"), ErrCompression},
		{"zstd cut inside", redigest(other(zs, zs.blob[:len(zs.blob)-1])), ErrCompression},
		{"zstd: bytes behind", behind(zs, "xxxx"), ErrCompression},
		{"gzip labelled zstd", other2(zs, gz), ErrCompression},
		{"zstd labelled gzip", other2(gz, zs), ErrCompression},
		{"wrong DiffID", diff(gz, otherTar), ErrDiffID},
		{"wrong DiffID, plain", diff(pl, otherTar), ErrDiffID},
		{"byte behind the end of the archive", gzipLayer(t, trailing), unpack.ErrTrailing},
		{"byte far behind the end of the archive", gzipLayer(t, late), unpack.ErrTrailing},
		{"second archive behind the first", gzipLayer(t, append(bytes.Clone(tarball), otherTar...)), unpack.ErrTrailing},
		{"archive cut inside a file", gzipLayer(t, tarball[:4000]), unpack.ErrTruncated},
		{"not an archive", gzipLayer(t, bytes.Repeat([]byte("not a tar"), 1000)), unpack.ErrFormat},
		{"path escape", gzipLayer(t, tarOf(t, entry{name: "../evil", body: "evil"})), unpack.ErrEscape},
		{"path escape in a wrong blob", other(gz, gzipOf(t, tarOf(t, entry{name: "../evil", body: "evil"}))), ErrDigest},
		{"encrypted: ciphertext flipped, digest too", redigest(flip(gz.encrypted(t, keys), 100)), ErrMAC},
		{"encrypted: last byte flipped, digest too", redigest(flipLast(pl.encrypted(t, keys))), ErrMAC},
		{"encrypted: ciphertext flipped", flip(gz.encrypted(t, keys), 100), ErrDigest},
		{"encrypted: wrong MAC", gz.encrypted(t, keys, func(e *encryption) { e.public["hmac"] = make([]byte, 32) }), ErrMAC},
		{"encrypted: wrong key", gz.encrypted(t, keys, func(e *encryption) { e.Key = bytes.Repeat([]byte{1}, 32) }), ErrMAC},
		{"encrypted: wrong nonce", gz.encrypted(t, keys, func(e *encryption) { e.Opts["nonce"][0] ^= 1 }), ErrPlainDigest},
		{"encrypted: wrong nonce, plain tar", pl.encrypted(t, keys, func(e *encryption) { e.Opts["nonce"][15] ^= 1 }), ErrPlainDigest},
		{"encrypted: wrong wrapped digest", gz.encrypted(t, keys, func(e *encryption) { e.Digest = digestOf(otherTar) }), ErrPlainDigest},
		{"encrypted: wrong DiffID", diff(gz.encrypted(t, keys), otherTar), ErrDiffID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := openLayer(t, tt.l, keys, nil, nil); !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
		})
	}
}

// other2 is the layer like with the blob of from, everything else consistent.
func other2(like, from testLayer) testLayer {
	from.mediaType = like.mediaType
	return from
}

func flipLast(l testLayer) testLayer { return flip(l, len(l.blob)-1) }

// A cut transport is the error, not what the stages made of half a layer.
func TestLayerCut(t *testing.T) {
	keys := new(fakeKeys)
	cut := errors.New("connection cut")
	for _, l := range []testLayer{plainLayer(someTar(t)), gzipLayer(t, someTar(t)), zstdLayer(t, someTar(t)), gzipLayer(t, someTar(t)).encrypted(t, keys)} {
		for _, n := range []int{0, 1, 10, len(l.blob) / 2, len(l.blob)} {
			part := l
			part.blob = l.blob[:n]
			if _, err := openLayer(t, part, keys, nil, cut); !errors.Is(err, cut) {
				t.Errorf("%s cut after %d bytes: got error %v, want %v", l.mediaType, n, err, cut)
			}
		}
	}
}

func TestLayerExpansion(t *testing.T) {
	bomb := tarOf(t, entry{name: "zeros", body: string(make([]byte, 8<<20))})
	small := func(v *verifiedLayer) { v.limit = 4 << 20 }
	for _, l := range []testLayer{plainLayer(bomb), gzipLayer(t, bomb), zstdLayer(t, bomb)} {
		if _, err := openLayer(t, l, nil, small, nil); !errors.Is(err, ErrExpansion) {
			t.Errorf("%s: got error %v, want %v", l.mediaType, err, ErrExpansion)
		}
	}
	// A bomb that is not what the manifest names is a wrong blob first of all.
	if _, err := openLayer(t, flipLast(gzipLayer(t, bomb)), nil, small, nil); !errors.Is(err, ErrDigest) {
		t.Errorf("got error %v, want %v", err, ErrDigest)
	}
}

// A zstd frame may ask for a window of 128 MiB before its first byte is checked.
func TestLayerZstdWindow(t *testing.T) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(32<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	tarball := tarOf(t, entry{name: "f", body: string(make([]byte, 40<<20))})
	if _, err := w.Write(tarball); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openLayer(t, newTestLayer(typeZstd, buf.Bytes(), tarball), nil, nil, nil)
	if !errors.Is(err, ErrCompression) || !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Errorf("got error %v, want %v: %v", err, ErrCompression, zstd.ErrWindowSizeExceeded)
	}
}

// A full disk ends the pull at once and says what it is.
func TestLayerFullDisk(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	tarball := tarOf(t, entry{name: "f", body: strings.Repeat("0123456789abcdef", 256<<10)})
	l := gzipLayer(t, tarball)
	digest, diffID := hashOf(l.blob), hashOf(tarball)
	d, err := parseLayerType(descriptor{mediaType: l.mediaType, digest: digest, size: l.size})
	if err != nil {
		t.Fatal(err)
	}
	v := verifiedLayer{layerDescriptor: d, id: layerID{diffID: diffID}, keeper: directories{}, limit: 1 << 30, chunks: newChunkPool(), codecs: new(decompressors)}
	_, err = v.unpack(t.Context(), func(context.Context) io.ReadCloser { return pieces{bytes.NewReader(l.blob), nil} }, dir)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got error %v, want ENOSPC", err)
	}
}

// An end of the context ends every stage, wherever it waits.
func TestLayerCancelled(t *testing.T) {
	needRoot(t)
	l := gzipLayer(t, tarOf(t, entry{name: "f", typ: tar.TypeReg, body: strings.Repeat("x", 16<<20)}))
	d, err := parseLayerType(descriptor{mediaType: l.mediaType, digest: hashOf(l.blob), size: l.size})
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		v := verifiedLayer{layerDescriptor: d, id: layerID{diffID: hashOf(nil)}, keeper: directories{}, limit: 1 << 30, chunks: newChunkPool(), codecs: new(decompressors)}
		_, err := v.unpack(ctx, func(ctx context.Context) io.ReadCloser {
			return pieces{slow{ctx, bytes.NewReader(l.blob)}, nil}
		}, t.TempDir())
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrDiffID) {
			t.Errorf("after %s: got error %v, want %v", after, err, context.DeadlineExceeded)
		}
	}
	if entries, _ := os.ReadDir("/proc/self/task"); len(entries) > 200 {
		t.Errorf("%d threads are left", len(entries))
	}
}

// slow yields a byte a millisecond until ctx ends, like a connection would.
type slow struct {
	ctx context.Context
	r   io.Reader
}

func (s slow) Read(b []byte) (int, error) {
	select {
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	case <-time.After(time.Millisecond):
		return s.r.Read(b)
	}
}

// panicking is a blob whose connection does what no code should.
type panicking struct{ io.Reader }

func (panicking) Read([]byte) (int, error) { panic("sesame") }
func (panicking) Close() error             { return nil }

// A stage that panics ends with an error, and so does the stage it feeds: the
// process may be the guest's init.
func TestStagePanics(t *testing.T) {
	l := plainLayer(someTar(t))
	v := verifiedLayer{layerDescriptor: layerDescriptor{descriptor: descriptor{digest: hashOf(l.blob)}}, id: layerID{diffID: hashOf(l.blob)}, keeper: directories{},
		limit: 1 << 30, over: ErrExpansion, chunks: newChunkPool(), codecs: new(decompressors)}
	// A nil chunk, which no stage sends, is the bug that all of them would meet.
	broken := func() *stream {
		s := newStream()
		s.chunks <- nil
		s.end(nil)
		return s
	}
	for name, run := range map[string]func(next *stream) error{
		"fetch": func(next *stream) error {
			return v.fetch(t.Context(), func(context.Context) io.ReadCloser { return panicking{} }, next)
		},
		"fetch opens": func(next *stream) error {
			return v.fetch(t.Context(), func(context.Context) io.ReadCloser { panic("sesame") }, next)
		},
		"open": func(next *stream) error { return v.open(t.Context(), broken(), next) },
		"inflate": func(next *stream) error {
			return v.inflate(t.Context(), broken(), newStream(), next)
		},
		"hash": func(next *stream) error { err := v.hash(broken()); next.end(err); return err },
		"unpack": func(next *stream) error {
			_, err := v.unpackAll(t.Context(), t.TempDir(), &reader{s: broken()})
			next.end(err)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			next := newStream()
			err := func() (err error) {
				defer func() {
					if v := recover(); v != nil {
						t.Fatalf("the panic %v went on", v)
					}
				}()
				return run(next)
			}()
			if err == nil || !strings.Contains(err.Error(), "internal error") {
				t.Errorf("got error %v, want an internal one", err)
			}
			if _, open := <-next.chunks; open || next.err == nil {
				t.Errorf("the next stage sees a stream that ends with %v", next.err)
			}
		})
	}
}
