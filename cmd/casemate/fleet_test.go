// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

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
