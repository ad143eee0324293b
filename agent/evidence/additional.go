// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// SampleDevice is the device that proves nothing, as the sample TEE is the TEE. It is never
// a primary TEE, so ParseTEE does not know it.
const SampleDevice TEE = "sampledevice"

// devices are the kinds that there are, in the order of their names.
func devices() []TEE { return []TEE{SampleDevice, TPM} }

// ParseDevice returns the kind of device of that exact name, or an error that quotes it.
// Devices are what stands beside a primary TEE in additional_evidence.
func ParseDevice(name string) (TEE, error) {
	for _, device := range devices() {
		if string(device) == name {
			return device, nil
		}
	}
	return "", fmt.Errorf("unknown device %s", quote(name))
}

// DeviceEvidence is the evidence of one device beside the primary TEE, a JSON object. It is
// bound to RuntimeData.DeviceReportData.
type DeviceEvidence struct {
	Device   TEE
	Evidence json.RawMessage
}

// Device makes its evidence; every attester is one.
type Device interface {
	// TEE returns the device's name.
	TEE() TEE
	// Evidence returns fresh evidence bound to r, a JSON object.
	Evidence(ctx context.Context, r ReportData) (json.RawMessage, error)
}

// GatherAdditional asks each device for evidence bound to r and returns what
// EncodeAdditional makes of it. One that fails is an error that names it.
func GatherAdditional[D Device](ctx context.Context, devices []D, r ReportData) (string, error) {
	var parts []DeviceEvidence
	for _, device := range devices {
		raw, err := device.Evidence(ctx, r)
		if err != nil {
			return "", fmt.Errorf("making evidence of device %s: %w", device.TEE(), err)
		}
		parts = append(parts, DeviceEvidence{Device: device.TEE(), Evidence: raw})
	}
	return EncodeAdditional(parts)
}

// EncodeAdditional returns the additional_evidence of an attestation: a JSON object with a
// member for each device, in the order of their names; "" for no device. The primary
// report binds exactly this text.
func EncodeAdditional(parts []DeviceEvidence) (string, error) {
	if len(parts) == 0 {
		return "", nil
	}
	for _, p := range parts {
		if _, err := ParseDevice(string(p.Device)); err != nil {
			return "", fmt.Errorf("encoding additional evidence: %w", err)
		}
		if v := jsontext.Value(p.Evidence); !v.IsValid() || v.Kind() != '{' {
			return "", fmt.Errorf("encoding additional evidence: %s: not a JSON object", p.Device)
		}
	}
	var out []byte
	for _, device := range devices() {
		before := len(out)
		for _, p := range parts {
			if p.Device != device {
				continue
			}
			if len(out) > before {
				return "", fmt.Errorf("encoding additional evidence: two parts of %s", device)
			}
			out = append(fmt.Appendf(out, `,"%s":`, device), p.Evidence...)
		}
	}
	out[0] = '{' // in place of the first comma
	if out = append(out, '}'); len(out) > MaxAdditionalEvidenceSize {
		return "", fmt.Errorf("encoding additional evidence: %d bytes, at most %d allowed", len(out), MaxAdditionalEvidenceSize)
	}
	return string(out), nil
}

// ParseAdditional takes additional_evidence apart, in the order of the names. It refuses a
// device that it does not know by name, a repeated one, a part that is no object, and an
// object without parts, which is not how none is written. The parts are not looked into.
func ParseAdditional(text string) ([]DeviceEvidence, error) {
	if text == "" {
		return nil, nil
	}
	r := readObject("additional evidence", []byte(text), MaxAdditionalEvidenceSize)
	if r.err != nil {
		return nil, r.err
	}
	for name, value := range r.members {
		if device, err := ParseDevice(name); err != nil {
			return nil, fmt.Errorf("parsing additional evidence: %w", err)
		} else if value.Kind() != '{' {
			return nil, fmt.Errorf("parsing additional evidence: %s: not a JSON object", device)
		}
	}
	var parts []DeviceEvidence
	for _, device := range devices() {
		if value, ok := r.members[string(device)]; ok {
			parts = append(parts, DeviceEvidence{Device: device, Evidence: json.RawMessage(value)})
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("parsing additional evidence: no part, want an empty text for none")
	}
	return parts, nil
}
