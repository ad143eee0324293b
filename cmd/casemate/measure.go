// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/evidence"
)

// openEvents opens the event log where configuration asks for one. Of the platforms that
// are attested here TDX and a plain TPM, also one beside another TEE, have a register to
// bind it to.
func (m *machine) openEvents(dir, measurements string) error {
	if !m.conf.EventLog.Enable {
		return nil
	}
	var register eventlog.Register
	if m.attester.TEE() == evidence.TDX {
		var err error
		if register, err = eventlog.OpenRTMR3(measurements); err != nil {
			return err
		}
	}
	for _, a := range append([]attest.Attester{m.attester}, m.devices...) {
		if pcr, ok := attest.TPMEvents(a); ok && register == nil {
			register = pcr
		}
	}
	events, err := eventlog.Open(dir, register)
	if err != nil {
		return err
	}
	m.events = events
	if !events.Bound() {
		m.steps.say("the event log is unbound: this platform shows no register to extend, so no relying party sees it")
	}
	return nil
}

// deviceEvents is the event log for a TPM beside the TEE: that of a TD is in its own
// registers, and in a second place it would not replay.
func (m *machine) deviceEvents() attest.RuntimeLog {
	if m.attester.TEE() == evidence.TDX {
		return nil
	}
	return heldEvents{m}
}

// heldEvents is the event log for the attester, which is made before configuration is
// complete.
type heldEvents struct{ m *machine }

// Hold calls f while the log stands still.
func (h heldEvents) Hold(f func(entries []byte) error) error {
	if h.m.events == nil {
		return f(nil)
	}
	return h.m.events.Hold(f)
}

// canMeasure fails where configuration requires measured entries and there is nothing to
// measure them into.
func (m *machine) canMeasure() error {
	if m.conf.EventLog.Require && (m.events == nil || !m.events.Bound()) {
		return errors.New("eventlog.require: this platform has no register that would hold the image's entry")
	}
	return nil
}

// measureImage records an image once for each name and digest. The content has the bytes
// of confidential-data-hub's, which policies compare.
func (m *machine) measureImage(reference, digest string) error {
	if m.events == nil {
		return nil
	}
	if strings.ContainsAny(reference, "\"\\") {
		return fmt.Errorf("recording the image: %.128q cannot stand in an entry", reference)
	}
	return m.events.Measure(eventlog.DomainImages, "PullImage", `{"image":"`+reference+`", "digest":"`+digest+`"}`)
}

// started is what the entry of a container says.
type started struct {
	ID     string `json:"id"`
	Image  string `json:"image"`
	Digest string `json:"digest"`
}

// measureStart records a container. Ids are not used twice.
func (m *machine) measureStart(what started) error {
	if m.events == nil {
		return nil
	}
	content, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("recording the container: %w", err)
	}
	return m.events.Measure(eventlog.DomainGuest, "StartContainer", string(content))
}
