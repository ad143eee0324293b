// SPDX-License-Identifier: Apache-2.0

package policy

// An evaluation goes down a megabyte of stack where a generated policy is long: what follows a condition is evaluated
// beneath it. A goroutine begins with a few kilobytes and doubles them, copying all frames, and the garbage collector
// halves the stack again whenever less than a quarter is in use. Both cost more than the evaluation itself.

// room is a part of a stack's frame that nobody writes to: it costs addresses, not memory.
type room [128 << 10]byte

// roomy runs f on a stack of 2 MiB of which at least a quarter counts as used until f returns: it is grown once, while
// there is little to copy, and not shrunk in between.
//
//go:noinline
func roomy(f func()) {
	if f == nil {
		var a, b, c, d room
		occupy(&a, &b, &c, &d, nil)
	}
	grow(f)
	f()
}

// grow has the runtime find room for its frame, beneath roomy's.
//
//go:noinline
func grow(f func()) {
	if f == nil {
		var a, b, c, d, e room
		occupy(&a, &b, &c, &d, &e)
	}
}

// occupy keeps the compiler from leaving rooms out. It is never called.
//
//go:noinline
func occupy(a, b, c, d, e *room) { a[0], b[0], c[0], d[0], e[0] = 1, 1, 1, 1, 1 }
