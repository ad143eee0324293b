// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLayerThatDidNotClose: a layer whose mount is gone and whose mapping is in use for longer, by what another container
// shares of the first, is not handed out again: the next container's root would lack it. It is closed with the rest.
func TestLayerThatDidNotClose(t *testing.T) {
	key := layerKey{[2]uint64{0, 7}, "pin"}
	unmapped, unmounted := 0, 0
	h := &mappedLayer{key: key, dir: "/nowhere/1-00000000", holders: 2, undo: []func() error{
		func() error { // of the mapping
			if unmapped++; unmapped == 1 {
				return unix.EIO
			}
			return nil
		},
		func() error { unmounted++; return nil },
	}}
	p := &layerMaps{open: map[layerKey]*mappedLayer{key: h}}
	if err := p.release(h); err != nil || unmounted != 0 || p.open[key] != h {
		t.Fatalf("below a holder: %v, unmounted %d times", err, unmounted)
	}
	if err := p.release(h); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if p.open[key] != nil {
		t.Error("a layer without its mount is there for the next holder")
	}
	if err := p.close(); err != nil || unmounted != 1 || unmapped != 2 {
		t.Errorf("at the end: %v, unmounted %d times, unmapped %d times", err, unmounted, unmapped)
	}
}
