// SPDX-License-Identifier: Apache-2.0

package sha256x2

import "golang.org/x/sys/cpu"

// accelerated says whether the processor has the instructions: SHA, and those up to SSE4.1 to feed it.
var accelerated = cpu.X86.HasSSSE3 && cpu.X86.HasSSE41 && hasSHA()

// hasSHA reads CPUID leaf 7, EBX bit 29, which x/sys/cpu does not tell.
func hasSHA() bool

// chunks2 takes n chunks of 64 bytes from a and from b into both states.
//
//go:noescape
func chunks2(s *[2]state, a, b *byte, n int)

// chunks takes a and b, equally long and whole chunks, into both states.
func chunks(s *[2]state, a, b []byte) {
	if len(a) > 0 {
		chunks2(s, &a[0], &b[0], len(a)/64)
	}
}
