// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/agent/guest"
)

// TestMeasuredRootIsFound: content decides, not names or order, and no two devices
// may hold the same.
func TestMeasuredRootIsFound(t *testing.T) {
	data, hash, pin := pinned(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, make([]byte, 40*4096), 0o600); err != nil {
		t.Fatal(err)
	}
	copied := func(name string, at int64) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(out, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if at >= 0 {
			flip(t, out, at)
		}
		return out
	}
	find := func(devices ...string) (*measuredRoot, error) {
		root, err := newMeasuredRoot(pin.Text())
		if err != nil {
			t.Fatal(err)
		}
		return root.(*measuredRoot), root.Find(devices)
	}
	for _, order := range [][]string{{data, hash, other}, {other, hash, data}, {hash, "/nonexistent", data}} {
		if r, err := find(order...); err != nil || r.data != data || r.hash != hash {
			t.Errorf("%q: got %+v, %v", order, r, err)
		}
	}
	for name, tt := range map[string]struct {
		devices []string
		waits   bool // for another disk, which may still come
	}{
		"no disk":                          {nil, true},
		"no tree":                          {[]string{data, other}, true},
		"no data":                          {[]string{hash, other}, true},
		"changed first block of the data":  {[]string{copied(data, 1024), hash}, true},
		"changed top of the tree":          {[]string{data, copied(hash, 4096)}, true},
		"two trees":                        {[]string{data, hash, copied(hash, -1)}, false},
		"two roots":                        {[]string{data, copied(data, -1), hash}, false},
		"two roots, one with a later flip": {[]string{data, copied(data, 5*4096), hash}, false},
	} {
		if _, err := find(tt.devices...); err == nil || errors.Is(err, guest.ErrNoRoot) != tt.waits {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := newMeasuredRoot("root_hash=00"); err == nil {
		t.Error("half a pin was taken")
	}
}
