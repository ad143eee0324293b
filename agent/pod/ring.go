// SPDX-License-Identifier: Apache-2.0

package pod

// ringMin is what a ring begins with: most outputs are lines.
const ringMin = 4 << 10

// ring is a buffer that is written behind what has not been read. A slice that grows at
// one end and is given away at the other costs a garbage collection every few reads,
// which takes longer than the reads. The zero value is empty.
type ring struct {
	mem   []byte
	first int // of the bytes in it
	have  int // how many there are
}

// put takes p behind the others. The caller bounds what is in it.
func (r *ring) put(p []byte) {
	if need := r.have + len(p); need > len(r.mem) {
		size := max(len(r.mem), ringMin)
		for size < need {
			size *= 2
		}
		mem := make([]byte, size)
		have := r.take(mem[:r.have])
		*r = ring{mem: mem, have: have}
	}
	if len(p) == 0 {
		return
	}
	n := copy(r.mem[(r.first+r.have)%len(r.mem):], p)
	copy(r.mem, p[n:])
	r.have += len(p)
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
