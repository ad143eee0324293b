// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The ring is compared with a plain buffer over writes of every size, its own
// included, and reads from any place.
func TestRingKeepsTheEnd(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var r ring
	var all []byte
	for _, size := range []int{0, 1, 100, RingSize - 101, 1, RingSize, RingSize + 1, 3*RingSize + 7, 5, 4096, RingSize - 1} {
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		if n, err := r.Write(p); n != size || err != nil {
			t.Fatalf("writing %d bytes: got %d, %v", size, n, err)
		}
		all = append(all, p...)
		for _, offset := range []int{0, len(all) / 2, max(0, len(all)-RingSize-1), max(0, len(all)-RingSize), max(0, len(all)-1), len(all)} {
			data, next, lost := r.since(int64(offset))
			oldest := max(0, len(all)-RingSize, offset)
			if !bytes.Equal(data, all[oldest:]) || next != int64(len(all)) || lost != int64(oldest-offset) {
				t.Fatalf("after %d bytes, from %d: got %d bytes, next %d, lost %d", len(all), offset, len(data), next, lost)
			}
		}
		if len(r.buf) > RingSize {
			t.Fatalf("the ring has %d bytes", len(r.buf))
		}
	}
}

func TestRingWakesReaders(t *testing.T) {
	var r ring
	more := r.more(0)
	select {
	case <-more:
		t.Fatal("woken by nothing")
	default:
	}
	_, _ = r.Write([]byte("x"))
	<-more
	<-r.more(0) // what is there already wakes at once
}
