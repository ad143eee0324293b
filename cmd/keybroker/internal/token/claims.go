// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

const (
	// profile says to Trustee's policies which claims to expect.
	profile = "tag:github.com,2024:confidential-containers/Trustee"

	issuer    = "casemate-keybroker"
	developer = "https://github.com/casemate/casemate"
	policyID  = "default"

	// submodule is where the claims of the primary TEE are.
	submodule = "cpu0"
)

// Grant is what a token says: the outcome of one handshake.
type Grant struct {
	// ID is the correlation id of the handshake.
	ID string
	// Workload is the registration that the guest was judged by.
	Workload string
	// Verdict is an allowing verdict.
	Verdict verifier.Verdict
	// RuntimeData has the TEE key that the token is bound to.
	RuntimeData evidence.RuntimeData
}

// payload has its members in the order of RFC 8785, so that equal grants are equal text.
type payload struct {
	Binding  binding           `json:"casemate"`
	Profile  string            `json:"eat_profile"`
	Verifier verifierID        `json:"ear.verifier-id"`
	Expires  int64             `json:"exp"`
	Issued   int64             `json:"iat"`
	Issuer   string            `json:"iss"`
	ID       string            `json:"jti"`
	Submods  map[string]submod `json:"submods"`
}

// binding is what a release is judged by.
type binding struct {
	Workload string         `json:"workload"`
	Facts    verifier.Facts `json:"facts"`
}

type verifierID struct {
	Build     string `json:"build"`
	Developer string `json:"developer"`
}

type submod struct {
	PolicyID string                    `json:"ear.appraisal-policy-id"`
	Status   string                    `json:"ear.status"`
	Vector   vector                    `json:"ear.trustworthiness-vector"`
	Evidence map[string]jsontext.Value `json:"ear.veraison.annotated-evidence"`
}

// vector is the AR4SI trustworthiness vector.
type vector struct {
	Configuration    int `json:"configuration"`
	Executables      int `json:"executables"`
	FileSystem       int `json:"file-system"`
	Hardware         int `json:"hardware"`
	InstanceIdentity int `json:"instance-identity"`
	RuntimeOpaque    int `json:"runtime-opaque"`
	SourcedData      int `json:"sourced-data"`
	StorageOpaque    int `json:"storage-opaque"`
}

// members of the annotated evidence besides the one named after the TEE.
const (
	memberReportData  = "report_data"
	memberInitData    = "init_data"
	memberRuntimeData = "runtime_data_claims"
	// memberTestRoot is a boolean that other consumers of the token must look at: a chain
	// to a root given for tests is judged, and its status claimed, like one to the
	// vendor's, but proves nothing about hardware. The keybroker itself releases to it
	// only for registrations with test_roots.
	memberTestRoot = "test_root"
	// memberDebug is a boolean that they must look at too: the host has a shell in a debug
	// guest. Released to only for registrations with debug.
	memberDebug = "debug_guest"
)

func newPayload(g Grant, build string, now time.Time, lifetime time.Duration) (payload, error) {
	v := g.Verdict.Vector
	reportData, err := g.RuntimeData.ReportData(evidence.DefaultHash)
	if err != nil {
		return payload{}, err
	}
	_, initData, _ := strings.Cut(g.Verdict.Facts.InitData, ":")
	annotated := map[string]jsontext.Value{
		string(g.Verdict.Facts.TEE): jsontext.Value(g.Verdict.Claims),
		memberReportData:            text(hex.EncodeToString(reportData.Digest())),
		memberInitData:              text(initData),
		memberRuntimeData:           jsontext.Value(g.RuntimeData.Bound()),
		memberTestRoot:              jsontext.Value(strconv.FormatBool(g.Verdict.Facts.TestRoot)),
		memberDebug:                 jsontext.Value(strconv.FormatBool(g.Verdict.Facts.Debug)),
	}
	submods := map[string]submod{submodule: newSubmod(v, annotated)}
	if err := addDevices(submods, g); err != nil {
		return payload{}, err
	}
	return payload{
		Binding:  binding{Workload: g.Workload, Facts: g.Verdict.Facts},
		Profile:  profile,
		Verifier: verifierID{Build: build, Developer: developer},
		Expires:  now.Add(lifetime).Unix(),
		Issued:   now.Unix(),
		Issuer:   issuer,
		ID:       g.ID,
		Submods:  submods,
	}, nil
}

func newSubmod(v verifier.Vector, annotated map[string]jsontext.Value) submod {
	return submod{
		PolicyID: policyID,
		Status:   status(v.Hardware, v.Executables, v.Configuration),
		Vector:   vector{Configuration: v.Configuration, Executables: v.Executables, Hardware: v.Hardware},
		Evidence: annotated,
	}
}

// addDevices gives each device a submodule of its own, named as Trustee names them: by the
// class of its verifier and a number.
func addDevices(submods map[string]submod, g Grant) error {
	reportData, err := g.RuntimeData.DeviceReportData(evidence.DefaultHash)
	if err != nil {
		return err
	}
	for _, d := range g.Verdict.Devices {
		name, known := map[evidence.TEE]string{evidence.TPM: "cpu1", evidence.SampleDevice: "gpu0"}[d.Device]
		if !known {
			return fmt.Errorf("issuing a token: device %q has no place in it", d.Device)
		}
		submods[name] = newSubmod(d.Vector, map[string]jsontext.Value{
			string(d.Device):  jsontext.Value(d.Claims),
			memberReportData:  text(hex.EncodeToString(reportData.Digest())),
			memberRuntimeData: jsontext.Value(g.RuntimeData.Wire()),
		})
	}
	return nil
}

// text quotes hex digits.
func text(hexDigits string) jsontext.Value { return jsontext.Value(`"` + hexDigits + `"`) }

// status is the worst tier of AR4SI section 2.3.2 among claims; a claim of none at all
// says nothing.
func status(claims ...int) string {
	worst := 0
	for _, c := range claims {
		if c < 0 {
			c = -c
		}
		worst = max(worst, c)
	}
	switch {
	case worst >= 96:
		return "contraindicated"
	case worst >= 32:
		return "warning"
	case worst >= 2:
		return "affirming"
	}
	return "none"
}

// parsePayload reads what verify has found to be signed by this keybroker.
func parsePayload(raw []byte) (payload, evidence.JWK, error) {
	var p payload
	if err := json.Unmarshal(raw, &p, json.RejectUnknownMembers(true)); err != nil {
		return payload{}, evidence.JWK{}, fmt.Errorf("parsing token claims: %w", err)
	}
	var runtimeData struct {
		Key jsontext.Value `json:"tee-pubkey"`
	}
	if err := json.Unmarshal(p.Submods[submodule].Evidence[memberRuntimeData], &runtimeData); err != nil {
		return payload{}, evidence.JWK{}, fmt.Errorf("parsing runtime data of a token: %w", err)
	}
	key, err := evidence.ParseJWK(runtimeData.Key)
	if err != nil {
		return payload{}, evidence.JWK{}, fmt.Errorf("parsing TEE key of a token: %w", err)
	}
	return p, key, nil
}
