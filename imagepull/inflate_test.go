// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func inflate(deflated []byte, wrap func(io.Reader) io.Reader) ([]byte, error) {
	f := newInflater()
	r := io.Reader(bytes.NewReader(deflated))
	if wrap != nil {
		r = wrap(r)
	}
	f.resetInput(r)
	return io.ReadAll(f)
}

func deflate(t testing.TB, level int, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// corpus is data of every kind: none, one byte, runs, noise, text, machine code,
// and distances up to the whole window.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	few := make([]byte, 200<<10)
	for i := range few {
		few[i] = "ab"[rng.IntN(2)]
	}
	skewed := make([]byte, 400<<10)
	for i := range skewed {
		skewed[i] = byte(min(rng.ExpFloat64()*12, 255))
	}
	text, err := os.ReadFile(filepath.Join(runtime.GOROOT(), "src/net/http/server.go"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	var periods []byte
	for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 100, 257, 258, 259, 32767, 32768} {
		periods = append(periods, bytes.Repeat(noise[:n], 1+70000/n)...)
	}
	return map[string][]byte{
		"nothing": nil, "one byte": {7}, "zeros": make([]byte, 1<<20), "noise": noise, "two letters": few,
		"skewed": skewed, "text": text, "code": code[:min(len(code), 1<<20)], "periods": periods,
	}
}

func TestInflate(t *testing.T) {
	for name, want := range corpus(t) {
		for _, level := range []int{flate.NoCompression, flate.HuffmanOnly, 1, 6, 9} {
			deflated := deflate(t, level, want)
			for kind, wrap := range map[string]func(io.Reader) io.Reader{
				"": nil, "one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data and error": iotest.DataErrReader,
			} {
				if kind != "" && level != 6 {
					continue
				}
				if got, err := inflate(deflated, wrap); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, level %d, %s: got %d bytes, %v, want %d", name, level, kind, len(got), err, len(want))
				}
			}
		}
	}
}

// Symbols of every kind fall on the end of the output buffer.
func TestInflateBufferEnd(t *testing.T) {
	text := corpus(t)["text"]
	text = text[:min(len(text), deflateWindow+2*outputBuffer)]
	near := bytes.Repeat([]byte("xyabcabcdabcde"), 30000)
	for shift := range 40 {
		for _, b := range [][]byte{text, near} {
			want := append(make([]byte, shift), b...)
			rand.New(rand.NewPCG(3, uint64(shift))).Shuffle(shift, func(i, j int) { want[i] = byte(i); want[j] = byte(j * j) })
			if got, err := inflate(deflate(t, 1, want), nil); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("shift %d: got %d bytes, %v, want %d", shift, len(got), err, len(want))
			}
		}
	}
}

// Cut anywhere, a stream is cut: never complete, never another error.
func TestInflateCut(t *testing.T) {
	for name, want := range corpus(t) {
		for _, level := range []int{0, 1, 9} {
			deflated := deflate(t, level, want[:min(len(want), 50000)])
			for n := 0; n < len(deflated); n += 1 + n/50 {
				if _, err := inflate(deflated[:n], nil); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s, level %d, cut at %d of %d: got error %v", name, level, n, len(deflated), err)
				}
			}
			cut := errors.New("cut")
			r := func(r io.Reader) io.Reader {
				return io.MultiReader(io.LimitReader(r, int64(len(deflated)/2)), iotest.ErrReader(cut))
			}
			if _, err := inflate(deflated, r); !errors.Is(err, cut) {
				t.Errorf("%s, level %d: got error %v, want %v", name, level, err, cut)
			}
		}
	}
}

func TestInflateInvalid(t *testing.T) {
	for name, deflated := range map[string][]byte{
		"block type 3":              {0x07},
		"stored length":             {0x01, 1, 0, 1, 0},
		"distance before the start": {0x03, 0x02, 0x00, 0x00},
		"distance code 30":          {0x03 | 0x20, 0xf8, 0xff},
		"286 length codes":          {0xfd, 0xff, 0xff},
		"31 distance codes":         {0x05, 0xfe, 0xff},
		"repeat of nothing":         {0x04, 0x80, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00},
		"no code lengths":           append([]byte{0x05}, make([]byte, 40)...),
		"over-subscribed":           {0x05, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		_, err := inflate(append(deflated, make([]byte, 64)...), nil)
		if _, want := io.ReadAll(flate.NewReader(bytes.NewReader(append(deflated, make([]byte, 64)...)))); want == nil {
			t.Fatalf("%s: the reference accepts it", name)
		}
		if !errors.Is(err, errDeflate) {
			t.Errorf("%s: got error %v, want %v", name, err, errDeflate)
		}
	}
}

// The reference decides: same output, same verdict.
func FuzzInflate(f *testing.F) {
	for _, b := range corpus(f) {
		f.Add(deflate(f, 6, b[:min(len(b), 2000)]))
		f.Add(deflate(f, flate.HuffmanOnly, b[:min(len(b), 2000)]))
	}
	f.Add([]byte{0x03, 0x00})
	f.Add([]byte("c0000")) // its last block ends in the padding
	f.Fuzz(func(t *testing.T, raw []byte) {
		const most = 1 << 20 // a bomb teaches nothing more
		reference := flate.NewReader(bytes.NewReader(raw))
		want, wantErr := io.ReadAll(io.LimitReader(reference, most))
		d := newInflater()
		d.resetInput(bytes.NewReader(raw))
		got, err := io.ReadAll(io.LimitReader(d, most))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got error %v, want %v", err, wantErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
		if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("the first %d bytes differ", n)
		}
	})
}

func gunzipAll(b []byte) ([]byte, error) {
	g := newGunzip()
	if err := g.reset(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return io.ReadAll(g)
}

func TestGunzip(t *testing.T) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	if _, err := io.WriteString(w, "hello "); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	named := buf.Bytes()
	withCRC := func(b []byte) []byte { // of a header without other flags
		h := append(bytes.Clone(b[:3]), b[3]|flagHCRC)
		h = append(h, b[4:10]...)
		h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
		return append(h, b[10:]...)
	}
	world := gzipOf(t, []byte("world"))
	empty := gzipOf(t, nil)
	for want, file := range map[string][]byte{
		"world":             world,
		"hello world":       append(bytes.Clone(named), world...),
		"":                  empty,
		"hello ":            bytes.Join([][]byte{empty, named, empty, empty}, nil),
		"worldworld":        append(withCRC(world), world...),
		"hello world hello": nil,
	} {
		if file == nil {
			continue
		}
		if got, err := gunzipAll(file); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	change := func(at int, v byte) []byte {
		b := bytes.Clone(world)
		b[(at+len(b))%len(b)] ^= v
		return b
	}
	badHCRC := withCRC(world)
	badHCRC[10] ^= 1
	for name, file := range map[string][]byte{
		"magic": change(0, 1), "method": change(2, 1), "unknown flag": change(3, 0x80),
		"checksum": change(-8, 1), "length": change(-1, 1), "header checksum": badHCRC,
		"zeros behind": append(bytes.Clone(world), make([]byte, 512)...), "text behind": append(bytes.Clone(world), "more than a header"...),
		"endless name": append([]byte{0x1f, 0x8b, 8, flagName, 0, 0, 0, 0, 0, 0}, strings.Repeat("x", maxGzipText+1)...),
	} {
		if _, err := gunzipAll(file); !errors.Is(err, errGzip) {
			t.Errorf("%s: got error %v, want %v", name, err, errGzip)
		}
	}
	for n := range named {
		if _, err := gunzipAll(named[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: got error %v, want %v", n, err, io.ErrUnexpectedEOF)
		}
	}
	for n := 1; n < len(world); n++ {
		if _, err := gunzipAll(append(bytes.Clone(named), world[:n]...)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("second member cut at %d: got error %v, want %v", n, err, io.ErrUnexpectedEOF)
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, name := range []string{"text", "code"} {
		data := corpus(b)[name]
		deflated := deflate(b, 6, data)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			f := newInflater()
			for b.Loop() {
				f.resetInput(bytes.NewReader(deflated))
				if _, err := io.Copy(io.Discard, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
