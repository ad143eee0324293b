// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestTidy: memory is given back once after work, not during it, and not for nothing.
func TestTidy(t *testing.T) {
	freed := 0
	tidy := tidier{free: func() { freed++ }}
	for i, look := range []struct {
		made uint64
		want int
	}{
		{10 << 20, 0}, // start
		{20 << 20, 0}, // work
		{20<<20 + 100, 1},
		{20<<20 + 200, 1},           // rest
		{20<<20 + tidyQuiet - 1, 1}, // a health check now and then
		{21 << 20, 1},               // a little work
		{21<<20 + 1, 1},
		{22 << 20, 1},
		{22<<20 + 101, 2},
	} {
		tidy.look(look.made)
		if freed != look.want {
			t.Fatalf("look %d, at %d bytes: given back %d times, want %d", i, look.made, freed, look.want)
		}
	}
}
