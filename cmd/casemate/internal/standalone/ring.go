// SPDX-License-Identifier: Apache-2.0

package standalone

import "sync"

// RingSize is how many bytes of a container's output are kept.
const RingSize = 256 << 10

// ring keeps the last RingSize bytes that were written. A writer never waits for a
// reader: what a slow one has not read by then is lost to it.
type ring struct {
	mu      sync.Mutex
	buf     []byte        // guarded by mu; grows to RingSize, then byte n of the output is at n % RingSize
	total   int64         // guarded by mu; bytes ever written
	changed chan struct{} // guarded by mu; closed and replaced by a write; nil when nobody waits
}

// Write takes all of p, always.
func (r *ring) Write(p []byte) (int, error) {
	n := len(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) > RingSize {
		// Only the end will be kept, at the place that it would have come to.
		skip := len(p) - RingSize
		r.fill(RingSize)
		r.total += int64(skip)
		p = p[skip:]
	}
	for len(p) > 0 {
		at := int(r.total % RingSize)
		k := min(len(p), RingSize-at)
		r.fill(at + k)
		copy(r.buf[at:], p[:k])
		r.total += int64(k)
		p = p[k:]
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return n, nil
}

// fill makes buf at least n long. It is only short before the first round is over.
func (r *ring) fill(n int) {
	if n > len(r.buf) {
		r.buf = append(r.buf, make([]byte, n-len(r.buf))...)
	}
}

// since returns a copy of what is kept from byte offset on, the offset behind it, and
// how many bytes from offset on are gone.
func (r *ring) since(offset int64) (data []byte, next, lost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := max(0, r.total-RingSize)
	if offset < oldest {
		lost, offset = oldest-offset, oldest
	}
	for offset < r.total {
		at := offset % RingSize
		k := min(r.total-offset, RingSize-at)
		data = append(data, r.buf[at:at+k]...)
		offset += k
	}
	return data, r.total, lost
}

// more is closed when something has been written behind offset.
func (r *ring) more(offset int64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total > offset {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}
