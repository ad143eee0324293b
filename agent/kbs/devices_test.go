// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// device is a sample device, or lies to be one.
type device struct {
	name evidence.TEE
	err  error
	make func(evidence.ReportData) []byte // nil: what it is bound to
}

func (d device) TEE() evidence.TEE { return d.name }

func (d device) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if d.err != nil {
		return nil, d.err
	}
	if d.make != nil {
		return d.make(r), nil
	}
	return evidence.SampleEvidence{SVN: "2", ReportData: r.Digest()}.Encode()
}

// The TEE's evidence binds the text of the devices', and each of them the same nonce and key.
func TestDevicesAttestInTheSameHandshake(t *testing.T) {
	var sent Transcript
	_, client := newPair(t, func(c *Config) {
		c.Devices = []Attester{device{name: evidence.SampleDevice}}
		c.Transcript = func(t Transcript) { sent = t }
	})
	if _, err := client.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := evidence.ParseAttestation(sent.Sent)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := evidence.ParseAdditional(a.RuntimeData.AdditionalEvidence())
	if err != nil || len(parts) != 1 || parts[0].Device != evidence.SampleDevice {
		t.Fatalf("parts %+v, %v", parts, err)
	}
	primary, err1 := evidence.ParseSampleEvidence(a.Evidence)
	beside, err2 := evidence.ParseSampleEvidence(parts[0].Evidence)
	bound, err3 := a.RuntimeData.ReportData(sent.Hash)
	deviceBound, err4 := a.RuntimeData.DeviceReportData(sent.Hash)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(primary.ReportData, bound.Digest()) || !bytes.Equal(beside.ReportData, deviceBound.Digest()) {
		t.Errorf("bound to %x and %x", primary.ReportData, beside.ReportData)
	}
}

// A part that is missing is no reason to go without it.
func TestDeviceThatCannotAttestEndsTheHandshake(t *testing.T) {
	for name, tt := range map[string]struct {
		devices []Attester
		want    string
	}{
		"it fails":          {[]Attester{device{name: evidence.SampleDevice, err: errors.New("no such chip")}}, "device sampledevice: no such chip"},
		"no broker reads":   {[]Attester{device{name: "nvidia"}}, `unknown device "nvidia"`},
		"two of a kind":     {[]Attester{device{name: evidence.SampleDevice}, device{name: evidence.SampleDevice}}, "two parts"},
		"it says no JSON":   {[]Attester{device{name: evidence.TPM, make: func(evidence.ReportData) []byte { return []byte("}") }}}, "not a JSON object"},
		"it says too much":  {[]Attester{device{name: evidence.TPM, make: func(evidence.ReportData) []byte { return []byte(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`) }}}, "at most"},
		"it says a request": {[]Attester{device{name: evidence.SampleDevice, make: func(evidence.ReportData) []byte { return []byte(`{"svn":"2"}`) }}}, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			_, client := newPair(t, func(c *Config) { c.Devices = tt.devices })
			if _, err := client.Token(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.200v, want %q", err, tt.want)
			}
		})
	}
}
