// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

// readBytes returns what a read gets, nil for the end.
func readBytes(ctx context.Context, s *stream, n int) (p []byte, err error) {
	n, err = s.read(ctx, n, func(n int) []byte { p = make([]byte, n); return p })
	return p[:n], err
}

// Whatever the sizes of writes and reads, what is read is what was written.
func TestStreamKeepsBytesInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, largest := range []int{1, 100, ringMin, streamBuffer, 5 * streamBuffer} {
		s := newStream()
		sent := make([]byte, 3<<20)
		for i := range sent {
			sent[i] = byte(random.Uint32())
		}
		sizes := rand.New(rand.NewPCG(3, 4)) // the writer's own
		go func() {
			for left := sent; len(left) > 0; {
				n := min(1+sizes.IntN(largest), len(left))
				if _, err := s.Write(left[:n]); err != nil {
					t.Error(err)
				}
				left = left[n:]
			}
			_ = s.Close()
		}()
		var got []byte
		for {
			n := 1 + random.IntN(2*largest)
			b, err := readBytes(t.Context(), s, n)
			if err != nil || len(b) > n {
				t.Fatalf("reading %d bytes: got %d, %v", n, len(b), err)
			}
			if len(b) == 0 {
				break
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("writes of up to %d bytes: got %d bytes that differ from the %d sent", largest, len(got), len(sent))
		}
		if len(s.buf.mem) > streamBuffer {
			t.Errorf("the buffer has grown to %d bytes", len(s.buf.mem))
		}
	}
}

// A reader's bytes are its own: later ones do not overwrite them.
func TestStreamGivesAway(t *testing.T) {
	s := newStream()
	for _, c := range []byte("abc") {
		if _, err := s.Write(bytes.Repeat([]byte{c}, streamBuffer)); err != nil {
			t.Fatal(err)
		}
		b, err := readBytes(t.Context(), s, streamBuffer)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if !bytes.Equal(b, bytes.Repeat([]byte{c}, streamBuffer)) {
				t.Errorf("the bytes read as %q have changed", c)
			}
		}()
	}
}

// A full stream holds its writer until there is room, nobody reads, or its own end.
func TestStreamFull(t *testing.T) {
	for name, tt := range map[string]struct {
		act  func(*stream, context.CancelFunc)
		want error
	}{
		"read":      {func(s *stream, _ context.CancelFunc) { _, _ = readBytes(context.Background(), s, streamBuffer/2) }, nil},
		"abandoned": {func(s *stream, _ context.CancelFunc) { s.abandon() }, io.ErrClosedPipe},
		"cancelled": {func(_ *stream, cancel context.CancelFunc) { cancel() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStream()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					_, err := s.write(ctx, make([]byte, streamBuffer+10))
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("written into a full buffer: %v", err)
				default:
				}
				tt.act(s, cancel)
				synctest.Wait()
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// pieces is a reader that gives what it has in pieces of whatever size.
type pieces struct {
	left   []byte
	random *rand.Rand
	most   int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1+p.random.IntN(p.most))], p.left)
	p.left = p.left[n:]
	return n, nil
}

// What a stream reads itself is read from it, whatever the sizes.
func TestStreamReadsFrom(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	for _, most := range []int{100, ringMin, streamBuffer / 2, 2 * streamBuffer} {
		s := newStream()
		go func() {
			if n, err := s.ReadFrom(&pieces{left: sent, random: rand.New(rand.NewPCG(7, 8)), most: most}); n != int64(len(sent)) || err != nil {
				t.Errorf("read %d bytes of %d: %v", n, len(sent), err)
			}
			_ = s.Close()
		}()
		var got []byte
		for {
			b, err := readBytes(t.Context(), s, 1+random.IntN(2*most))
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				break
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("pieces of up to %d bytes: got %d bytes that differ from the %d sent", most, len(got), len(sent))
		}
		if len(s.buf.mem) > streamBuffer {
			t.Errorf("the buffer has grown to %d bytes", len(s.buf.mem))
		}
	}
}

// Lines that are read as they come leave a stream as small as it was: a pod has thousands.
func TestStreamOfLinesStaysSmall(t *testing.T) {
	r, w := io.Pipe()
	s := newStream()
	go func() { _, _ = s.ReadFrom(r); _ = s.Close() }()
	line := bytes.Repeat([]byte("x"), 500)
	for range 100 {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
		for left := len(line); left > 0; {
			b, err := readBytes(t.Context(), s, streamBuffer)
			if err != nil {
				t.Fatal(err)
			}
			left -= len(b)
		}
	}
	_ = w.Close()
	if b, err := readBytes(t.Context(), s, 1); err != nil || len(b) != 0 || len(s.buf.mem) != ringMin {
		t.Errorf("%d bytes at the end, %v, in a buffer of %d", len(b), err, len(s.buf.mem))
	}
}

// What ends a stream, or what is put in place of it, finds it reading: what is read then goes nowhere.
func TestStreamThatChangesWhileItReads(t *testing.T) {
	for name, tt := range map[string]struct {
		act  func(*stream)
		want error  // of ReadFrom, at its next turn
		text string // for the reader
	}{
		"abandoned": {(*stream).abandon, io.ErrClosedPipe, ""},
		"replaced":  {func(s *stream) { s.replace("text") }, nil, "text"},
		"refused":   {(*stream).refuse, nil, "beforeduring"},
		"ended":     {func(s *stream) { _ = s.Close() }, io.ErrClosedPipe, "beforeduring"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				s, done := newStream(), make(chan error, 1)
				go func() {
					_, err := s.ReadFrom(r)
					done <- err
				}()
				_, _ = w.Write([]byte("before"))
				synctest.Wait()
				tt.act(s)
				_, _ = w.Write([]byte("during"))
				synctest.Wait()
				_ = w.Close()
				if err := <-done; err != tt.want {
					t.Errorf("ended with %v, want %v", err, tt.want)
				}
				_ = s.Close()
				if b, err := readBytes(t.Context(), s, 100); err != nil || string(b) != tt.text {
					t.Errorf("read %q, %v, want %q", b, err, tt.text)
				}
			})
		})
	}
}

// A refused stream does not hold its writer, and loses only what found no room.
func TestStreamDropsWhatIsRefused(t *testing.T) {
	s := newStream()
	s.refuse()
	if n, err := s.ReadFrom(bytes.NewReader(make([]byte, 5*streamBuffer))); n != 5*streamBuffer || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	_ = s.Close()
	got := 0
	for {
		b, err := readBytes(t.Context(), s, streamBuffer)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		got += len(b)
	}
	if got != streamBuffer {
		t.Errorf("%d bytes are kept, want %d", got, streamBuffer)
	}
}
