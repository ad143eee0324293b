// SPDX-License-Identifier: Apache-2.0

//go:build vm && sample

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// TestVMServeScratch: serve keeps its images on scratch, no second process takes it, and what a killed one has left of
// it, a mount inside included, is removed and made anew.
func TestVMServeScratch(t *testing.T) {
	conf := config.Measured{Scratch: config.Scratch{Device: "/dev/vdc"}}
	killed := testMachine(conf)
	if err := killed.serveScratch(t.Context()); err != nil {
		t.Fatal(err)
	}
	store, err := killed.storeDir()
	if err != nil || store != scratchPoint {
		t.Fatalf("the store is %q, %v", store, err)
	}
	inside := filepath.Join(store, "left", "root")
	if err := os.MkdirAll(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("left", inside, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	next := testMachine(conf)
	if err := next.serveScratch(t.Context()); err == nil || !strings.Contains(err.Error(), "another casemate") {
		t.Fatalf("a second process: %v", err)
	}
	if err := killed.scratch.lock.Close(); err != nil { // as the kernel does for a killed process
		t.Fatal(err)
	}
	if err := next.serveScratch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(scratchPoint, "left")); !os.IsNotExist(err) {
		t.Errorf("the earlier scratch is there: %v", err)
	}
	if err := next.scratch.close(); err != nil {
		t.Error(err)
	}
	if list, err := filepath.Glob("/dev/mapper/" + scratchName + "*"); err != nil || len(list) != 0 {
		t.Errorf("mapped: %v, %v", list, err)
	}
}
