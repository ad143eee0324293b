// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	tidyPause = 5 * time.Second // between two looks
	tidyQuiet = 64 << 10        // bytes made between two looks while nothing is asked
	tidyWorth = 2 << 20         // bytes made since memory was given back that are worth doing it again
)

// tidy gives memory back after work, until ctx ends. The collector comes when the heap has doubled, which it does not do
// in a guest that rests: what a handshake, a policy or a pull took would stay taken from the containers for minutes.
func tidy(ctx context.Context) {
	t := tidier{free: debug.FreeOSMemory}
	tick := time.NewTicker(tidyPause)
	defer tick.Stop()
	made := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	for {
		select {
		case <-tick.C:
			metrics.Read(made)
			t.look(made[0].Value.Uint64())
		case <-ctx.Done():
			return
		}
	}
}

// tidier knows how many bytes had been made at the last look, and when memory was given back.
type tidier struct {
	free         func()
	seen, tidied uint64
}

// look is told how many bytes have been made since the start.
func (t *tidier) look(made uint64) {
	quiet := made-t.seen < tidyQuiet
	t.seen = made
	if quiet && made-t.tidied >= tidyWorth {
		t.free()
		t.tidied = made
	}
}
