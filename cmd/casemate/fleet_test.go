// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// TestFleetCounts: a declared container's volume with a counter has whom to ask, when it opens and behind its closing.
func TestFleetCounts(t *testing.T) {
	m := testMachine(config.Measured{KBS: config.KBS{URL: "http://127.0.0.1:1", PlainHTTP: true}})
	m.attester = sampleAttester{}
	f := &fleet{m: m}
	v, err := f.counted(nil)
	if err != nil || v.Keys == nil || v.Counter == nil {
		t.Errorf("keys %v, counter %v, %v", v.Keys, v.Counter, err)
	}
	if len(f.undo) != 1 {
		t.Errorf("%d steps to undo: the session with the relying party ends before the volumes do", len(f.undo))
	}
	for _, undo := range f.undo {
		if err := undo(); err != nil {
			t.Error(err)
		}
	}
}

// TestFleetVolumeInUse: the kernel lets go of a container's mounts a moment after its last process, and of the volume's
// mapping and key behind that.
func TestFleetVolumeInUse(t *testing.T) {
	volume, mount := &closing{errs: []error{unix.EBUSY, unix.EBUSY}}, &closing{errs: []error{unix.EBUSY}}
	f := &fleet{undo: []func() error{volume.Close, mount.Close}}
	if err := f.closeVolumes(); err != nil || volume.calls != 3 || mount.calls != 2 {
		t.Errorf("%v; %d and %d attempts", err, volume.calls, mount.calls)
	}
	broken := &closing{errs: []error{unix.EIO}}
	f = &fleet{undo: []func() error{broken.Close}}
	if err := f.closeVolumes(); err == nil || broken.calls != 1 {
		t.Errorf("%v after %d attempts", err, broken.calls)
	}
}
