// SPDX-License-Identifier: Apache-2.0

package pod

// ringMin is what a ring begins with: most outputs are lines.
const ringMin = 4 << 10

// ring is a buffer that is written behind what has not been read. A slice that grows at
// one end and is given away at the other costs a garbage collection every few reads,
// which takes longer than the reads. The zero value is empty.
type ring struct {
	mem   []byte
	first int  // of the bytes in it
	have  int  // how many there are
	short bool // there was less space than what could be read
}

// put takes p behind the others. The caller bounds what is in it.
func (r *ring) put(p []byte) {
	r.grow(r.have + len(p))
	for len(p) > 0 {
		free := r.free()
		n := copy(free, p)
		r.have += n
		p = p[n:]
	}
}

// grow makes the ring hold n bytes.
func (r *ring) grow(n int) {
	if n <= len(r.mem) {
		return
	}
	size := max(len(r.mem), ringMin)
	for size < n {
		size *= 2
	}
	mem := make([]byte, size)
	have := r.take(mem[:r.have])
	*r = ring{mem: mem, have: have}
}

// free is what can be written in one piece.
func (r *ring) free() []byte {
	end := r.first + r.have
	if end < len(r.mem) {
		return r.mem[end:]
	}
	return r.mem[end-len(r.mem) : r.first]
}

// space returns at most room bytes that can be written in one piece, at least one where room is positive. Whoever
// writes them says so with fill, before anything else is put in. The ring grows to most, for as long as what it gives is
// filled up.
func (r *ring) space(room, most int) []byte {
	if len(r.mem) < most && (r.short || r.have == len(r.mem)) {
		r.grow(len(r.mem) + 1)
	}
	if r.have == 0 {
		r.first = 0
	}
	free := r.free()
	return free[:min(room, len(free))]
}

// fill takes the first n bytes of p, which space has returned, or says that they went into another ring.
func (r *ring) fill(p []byte, n int) bool {
	free := r.free()
	if len(free) < n || &free[0] != &p[0] {
		return false
	}
	r.have += n
	r.short = n == len(p) && n >= len(r.mem)/2
	return true
}

// take moves the first bytes to p, which is no larger than what there is.
func (r *ring) take(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	k := copy(p, r.mem[r.first:])
	copy(p[k:], r.mem)
	r.first, r.have = (r.first+len(p))%len(r.mem), r.have-len(p)
	return len(p)
}
