// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// growing is a file that grows with what is written.
type growing struct{ memory }

func (g *growing) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(g.memory)) {
		g.memory = append(g.memory, make(memory, end-int64(len(g.memory)))...)
	}
	return copy(g.memory[off:], p), nil
}

// offset is a device that begins later in a tree's file, which a test has no need to hold in full.
type offset struct {
	growing
	start int64
}

func (o *offset) WriteAt(p []byte, off int64) (int, error) {
	return o.growing.WriteAt(p, off-o.start)
}

func (o *offset) ReadAt(p []byte, off int64) (int, error) {
	return o.growing.ReadAt(p, off-o.start)
}

// sealing begins a Sealed whose tree's file leaves its empty beginning out.
func sealing(t testing.TB) (*Sealed, *growing, *offset) {
	t.Helper()
	data, tree := &growing{}, &offset{start: 8000 * 4096}
	s, err := Seal(data, tree, []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	return s, data, tree
}

// TestSealed: whatever the order of writes, the tree is the one that Build makes of the result, and reads give what was
// written.
func TestSealed(t *testing.T) {
	for _, size := range []int64{1024, 65536, 65536 + 512, 128 * 65536, 128*65536 + 1024, 3 << 20} {
		s, data, tree := sealing(t)
		want := make(memory, size)
		rng := rand.New(rand.NewPCG(uint64(size), 2))
		for range 300 {
			off := rng.Int64N(size)
			piece := noise(1+rng.IntN(int(min(size-off, 200_000))), rng.Uint64())
			if n, err := s.WriteAt(piece, off); err != nil || n != len(piece) {
				t.Fatalf("%d bytes: wrote %d, %v", size, n, err)
			}
			copy(want[off:], piece)
			got := make([]byte, rng.IntN(100_000))
			off = rng.Int64N(size)
			n, err := s.ReadAt(got, off)
			if err != nil && err != io.EOF || !bytes.Equal(got[:n], want[off:off+int64(n)]) {
				t.Fatalf("%d bytes: read %d at %d, %v", size, n, off, err)
			}
		}
		if err := s.Truncate(size); err != nil {
			t.Fatal(err)
		}
		pin, err := s.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data.memory[:size], want) {
			t.Errorf("%d bytes: the data is another", size)
		}
		p := pin.Params
		p.HashOffset = 0
		built, expected := build(t, want, p)
		if !bytes.Equal(pin.RootHash, expected.RootHash) {
			t.Errorf("%d bytes: root hash %x, want %x", size, pin.RootHash, expected.RootHash)
		}
		made := tree.memory[int64(pin.HashOffset)-tree.start:]
		if !bytes.Equal(made, built) {
			t.Errorf("%d bytes: the tree is another", size)
		}
		if err := Check(t.Context(), data, tree, pin); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestSealedAgainstTheDisk: a disk that gives back something else, or an older state, is found out when it is read on the
// way, and never gets into the tree.
func TestSealedAgainstTheDisk(t *testing.T) {
	const size = 40 * 65536
	content := noise(size, 5)
	for name, tamper := range map[string]func(data *growing){
		"a flipped bit":  func(d *growing) { d.memory[100] ^= 1 },
		"an older state": func(d *growing) { clear(d.memory[:65536]) },
		"the end is cut": func(d *growing) { d.memory = d.memory[:1000] },
	} {
		s, data, tree := sealing(t)
		if _, err := s.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		tamper(data)
		if _, err := s.ReadAt(make([]byte, 10), 200); err == nil {
			t.Errorf("%s: read", name)
		}
		if _, err := s.WriteAt([]byte("x"), 70); err == nil {
			t.Errorf("%s: a write to what is no longer there", name)
		}
		pin, err := s.Finish(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := Check(t.Context(), content, tree, pin); err != nil {
			t.Errorf("%s: the tree is not that of what was written: %v", name, err)
		}
		if err := Check(t.Context(), data, tree, pin); err == nil {
			t.Errorf("%s: the disk passes", name)
		}
	}
	// The group at the end is made anew when the size is known.
	s, data, _ := sealing(t)
	if _, err := s.WriteAt(content[:size-512], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(make([]byte, size), 0); err != io.EOF {
		t.Fatal(err)
	}
	for i := range int64(cachedGroups) { // push it out
		if _, err := s.ReadAt(make([]byte, 1), i*65536); err != nil {
			t.Fatal(err)
		}
	}
	data.memory[size-1000] ^= 1
	if _, err := s.Finish(t.Context()); !errors.Is(err, ErrDisk) {
		t.Errorf("a changed last group: got %v", err)
	}
}

// TestSealedRefuses: sizes that cannot be mapped.
func TestSealedRefuses(t *testing.T) {
	for name, act := range map[string]func(*Sealed) error{
		"behind the end": func(s *Sealed) error { _, err := s.WriteAt([]byte{1}, maxSealed); return err },
		"before it":      func(s *Sealed) error { _, err := s.WriteAt([]byte{1}, -1); return err },
		"a huge size":    func(s *Sealed) error { return s.Truncate(maxSealed + 1) },
		"shorter": func(s *Sealed) error {
			_, err := s.WriteAt(make([]byte, 2048), 0)
			return errors.Join(err, s.Truncate(1024))
		},
		"odd": func(s *Sealed) error {
			_, err := s.WriteAt(make([]byte, 2049), 0)
			_, e := s.Finish(t.Context())
			return errors.Join(err, e)
		},
		"nothing": func(s *Sealed) error { _, err := s.Finish(t.Context()); return err },
		"one block": func(s *Sealed) error {
			_, err := s.WriteAt(make([]byte, 512), 0)
			_, e := s.Finish(t.Context())
			return errors.Join(err, e)
		},
	} {
		s, _, _ := sealing(t)
		if err := act(s); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Seal(&growing{}, &growing{}, make([]byte, MaxSalt+1)); err == nil {
		t.Error("a long salt")
	}
}

func BenchmarkSealed(b *testing.B) {
	content := noise(64<<20, 9)
	data, tree := make(memory, 64<<20), &offset{start: 8000 * 4096}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		s, err := Seal(data, tree, make([]byte, 32))
		if err != nil {
			b.Fatal(err)
		}
		for at := int64(0); at < int64(len(content)); at += 128 << 10 {
			if _, err := s.WriteAt(content[at:at+128<<10], at); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
