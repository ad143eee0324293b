// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// TestLayers: both sources may bind layers, and neither moves what the other bound.
func TestLayers(t *testing.T) {
	text := func(digest, pin string) string {
		return "[image.layers.\"sha256:" + digest + "\"]\n\"io.github.casemate.dm-verity.pin\" = \"" + pin + "\"\n"
	}
	load := func(text string) Measured {
		t.Helper()
		m, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m, err := load(text("1", "a")).join(load(text("1", "a") + text("2", "b")))
	if err != nil || len(m.Image.Layers) != 2 || m.Image.Layers["sha256:2"]["io.github.casemate.dm-verity.pin"] != "b" {
		t.Errorf("got %+v, %v", m.Image.Layers, err)
	}
	if m, err = load("").join(load(text("1", "a"))); err != nil || len(m.Image.Layers) != 1 {
		t.Errorf("initdata's alone: %+v, %v", m.Image.Layers, err)
	}
	if _, err := load(text("1", "a")).join(load(text("1", "b"))); err == nil || !strings.Contains(err.Error(), "is set twice") {
		t.Errorf("two pins of one layer: %v", err)
	}
}
