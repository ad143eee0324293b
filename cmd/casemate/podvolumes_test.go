// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
)

// closing fails as often as it is told to.
type closing struct {
	errs  []error
	calls int
}

func (c *closing) Close() error {
	if c.calls++; c.calls > len(c.errs) {
		return nil
	}
	return c.errs[c.calls-1]
}

// TestVolumeRelease: a volume closes behind its last holder. One that does not close is kept, so that it is neither lost
// nor opened twice; one that is closed, counted or not, is not handed out again.
func TestVolumeRelease(t *testing.T) {
	uncounted := fmt.Errorf("volume: %w", storage.ErrNotCounted)
	for name, tt := range map[string]struct {
		errs []error
		kept bool
	}{
		"closes":      {nil, false},
		"in use once": {[]error{unix.EBUSY}, false}, // the kernel lets go a moment later
		"broken":      {[]error{unix.EIO}, true},
		"not counted": {[]error{uncounted}, false},
	} {
		c := &closing{errs: tt.errs}
		p := &podVolumes{open: map[string]*heldVolume{"data": {mounted: c, holders: 2}}}
		if err := p.release("data"); err != nil || c.calls != 0 {
			t.Errorf("%s: closed below a holder: %v", name, err)
		}
		err := p.release("data")
		if want := len(tt.errs) > 0 && tt.errs[0] != unix.EBUSY; (err != nil) != want || want && !errors.Is(err, tt.errs[0]) {
			t.Errorf("%s: %v", name, err)
		}
		if _, kept := p.open["data"]; kept != tt.kept {
			t.Errorf("%s: kept %v", name, kept)
		}
		if err := p.close(); err != nil || len(p.open) != 0 {
			t.Errorf("%s: at the end: %v, %d open", name, err, len(p.open))
		}
	}
}

// TestVolumeThatDidNotClose is not given to another container as it is: its mount may be gone, and what is written then
// would be in memory.
func TestVolumeThatDidNotClose(t *testing.T) {
	m := testMachine(config.Measured{Volumes: map[string]config.Volume{"data": {Device: "/dev/claim", Mount: "/data"}}})
	c := &closing{errs: []error{unix.EIO, unix.EIO}}
	p := &podVolumes{m: m, open: map[string]*heldVolume{"data": {node: "/dev/vdb", mounted: c, holders: 1}}}
	if err := p.release("data"); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if v, err := p.Open(t.Context(), "/dev/claim", "/dev/vdb"); v != nil || !errors.Is(err, unix.EIO) || c.calls != 2 {
		t.Errorf("%v, %v after %d tries", v, err, c.calls)
	}
	if err := p.close(); err != nil || len(p.open) != 0 {
		t.Errorf("%v, %d open", err, len(p.open))
	}
}

// TestVolumeKnownMeanwhile: while one volume is being opened, for which its key comes over the network, requests are
// told whether they name a volume. The policy judges no other request before they are.
func TestVolumeKnownMeanwhile(t *testing.T) {
	p := new(podVolumes)
	if p.Known("/dev/claim") {
		t.Error("known before the guest was accepted")
	}
	p.use(testMachine(config.Measured{Volumes: map[string]config.Volume{"data": {Device: "/dev/claim", Mount: "/data"}}}))
	p.mu.Lock() // as Open and encrypted do
	defer p.mu.Unlock()
	known := make(chan bool, 1)
	go func() { known <- p.Known("/dev/claim") && !p.Known("/dev/other") }()
	select {
	case ok := <-known:
		if !ok {
			t.Error("wrong answers")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no answer while a volume is being opened")
	}
}
