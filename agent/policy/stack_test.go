// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"runtime"
	"testing"
	"unsafe"
)

// descend uses n KiB of stack and more.
//
//go:noinline
func descend(n int) int {
	var b [1 << 10]byte
	if n == 0 {
		return 0
	}
	b[n%len(b)] = 1
	return descend(n-1) + int(b[n%len(b)])
}

// A stack that is grown or shrunk is another piece of memory.
func TestRoomyStackStays(t *testing.T) {
	done := make(chan struct{})
	go func() { // a new goroutine has a small stack
		defer close(done)
		var outer byte
		roomy(func() {
			var inner byte
			at := func() uintptr { return uintptr(unsafe.Pointer(&inner)) }
			if used := uintptr(unsafe.Pointer(&outer)) - at(); used < 4*unsafe.Sizeof(room{}) {
				t.Errorf("%d bytes count as used, want a quarter of 2 MiB", used)
			}
			before := at()
			for range 3 {
				descend(1 << 10)
				runtime.GC()
			}
			if at() != before {
				t.Error("the stack was moved")
			}
		})
	}()
	<-done
}
