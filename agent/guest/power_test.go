// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"encoding/binary"
	"testing"
	"time"
)

// acpiMessage is one as the kernel sends it for a press of class.
func acpiMessage(class string, attribute uint16) []byte {
	b := make([]byte, netlinkHeader+genericHeader+attributeHeader+classLen+24)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[20:], uint16(len(b)-20))
	binary.NativeEndian.PutUint16(b[22:], attribute)
	copy(b[24:24+classLen], class)
	return b
}

func TestIsPowerButton(t *testing.T) {
	good := acpiMessage("button/power", acpiEvent)
	if !isPowerButton(good) {
		t.Error("the power button is not known")
	}
	for name, b := range map[string][]byte{
		"sleep":             acpiMessage("button/sleep", acpiEvent),
		"a longer name":     acpiMessage("button/power/x", acpiEvent),
		"no end":            acpiMessage("button/powerbutton/power", acpiEvent),
		"another attribute": acpiMessage("button/power", 2),
		"nothing":           nil,
		"cut":               good[:43],
	} {
		if isPowerButton(b) {
			t.Errorf("%s switches the machine off", name)
		}
	}
}

// TestAwaitPowerButtonEnds: a machine without ACPI says so at once, any other when it is told to.
func TestAwaitPowerButtonEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- AwaitPowerButton(ctx) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("somebody has pressed it")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
}
