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
