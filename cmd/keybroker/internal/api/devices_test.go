// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

const allowAll = "package policy\nallow := true\n"

// withSampleDevice wants a sample device beside the TEE.
func withSampleDevice(r *owner.Registration) {
	r.Devices, r.Policy = []evidence.TEE{evidence.SampleDevice}, allowAll
}

// sampleDevice is the part that this data makes.
func sampleDevice(t testing.TB) func(evidence.ReportData) string {
	return func(data evidence.ReportData) string {
		raw, err := evidence.SampleEvidence{SVN: "2", ReportData: data.Digest()}.Encode()
		must(t, err)
		return fmt.Sprintf(`{"sampledevice":%s}`, raw)
	}
}

func TestDevicesBesideTheTEE(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, withSampleDevice)
	b.put("web", "app/keys/one", "the secret")
	g := b.guest(doc)
	g.devices = sampleDevice(t)
	g.handshake()
	g.wantSecret(g.get("app/keys/one"), "the secret")

	// Claims of each part are a submodule of their own.
	var claims struct {
		Casemate struct {
			Facts struct{ Devices string }
		}
		Submods map[string]struct {
			Status   string                     `json:"ear.status"`
			Evidence map[string]json.RawMessage `json:"ear.veraison.annotated-evidence"`
		}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(g.token, ".")[1])
	must(t, err)
	must(t, json.Unmarshal(payload, &claims))
	cpu, device := claims.Submods["cpu0"], claims.Submods["gpu0"]
	if len(claims.Submods) != 2 || cpu.Status != "affirming" || device.Status != "contraindicated" || claims.Casemate.Facts.Devices != "sampledevice" ||
		cpu.Evidence["snp"] == nil || cpu.Evidence["sampledevice"] != nil || device.Evidence["snp"] != nil || device.Evidence["sampledevice"] == nil {
		t.Errorf("claims %s", payload)
	}
	if !bytes.Contains(cpu.Evidence["runtime_data_claims"], []byte("additional-evidence")) || bytes.Contains(device.Evidence["runtime_data_claims"], []byte("additional-evidence")) ||
		bytes.Equal(cpu.Evidence["report_data"], device.Evidence["report_data"]) {
		t.Error("the parts claim to be bound to the same data")
	}

	// What the owner takes back is refused from then on.
	b.register("web", doc, func(r *owner.Registration) { r.Policy = allowAll })
	if a := g.get("app/keys/one"); a.status == http.StatusOK {
		t.Fatal("released to a guest with a device that is no longer listed")
	}
	b.wantLast(audit.Release, "devices")
}

// The built-in policy wants every part affirming, which a sample device never is; Validate
// refuses such a registration, so this is the policy of the same text.
func TestDeviceThatIsNotAffirmingGetsNothingByDefault(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, func(r *owner.Registration) {
		withSampleDevice(r)
		r.Policy = "package policy\ndefault allow := false\nallow if { every _, s in input.submods { s[\"ear.status\"] == \"affirming\" } }\n"
	})
	b.put("web", "app/keys/one", "the secret")
	g := b.guest(doc)
	g.devices = sampleDevice(t)
	g.handshake()
	wantRefused(t, g.get("app/keys/one"), 403, "PolicyDeny")
}

// The TEE's evidence is right in each case, but for what is said.
func TestDevicesThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		devices func(t *testing.T, g *guest) func(evidence.ReportData) string
		edit    func(body string) string // after the TEE's report was made; nil for none
		rules   []string
	}{
		{"none, where one is registered", func(*testing.T, *guest) func(evidence.ReportData) string { return nil }, nil, []string{"devices"}},
		{"a device that nobody verifies", func(*testing.T, *guest) func(evidence.ReportData) string {
			return func(evidence.ReportData) string { return `{"nvidia":{"device_evidence_list":[]}}` }
		}, nil, []string{"additional-evidence"}},
		{"one more, that nobody verifies", func(t *testing.T, _ *guest) func(evidence.ReportData) string {
			return func(d evidence.ReportData) string { return strings.TrimSuffix(sampleDevice(t)(d), "}") + `,"gpu":{}}` }
		}, nil, []string{"additional-evidence"}},
		{"an empty object", func(*testing.T, *guest) func(evidence.ReportData) string {
			return func(evidence.ReportData) string { return `{}` }
		}, nil, []string{"additional-evidence"}},
		{"a known one that is not registered", func(*testing.T, *guest) func(evidence.ReportData) string {
			return func(evidence.ReportData) string { return `{"tpm":{}}` }
		}, nil, []string{"tpm-format"}},
		{"a part of another handshake", func(t *testing.T, g *guest) func(evidence.ReportData) string {
			runtimeData, err := evidence.NewRuntimeData("b3RoZXI=", g.jwk, "")
			must(t, err)
			data, err := runtimeData.DeviceReportData(evidence.DefaultHash)
			must(t, err)
			return func(evidence.ReportData) string { return sampleDevice(t)(data) }
		}, nil, []string{"sampledevice-report-data"}},
		{"a part with another TEE key", func(t *testing.T, g *guest) func(evidence.ReportData) string {
			thief := g.b.guest(g.doc)
			runtimeData, err := evidence.NewRuntimeData(g.nonce, thief.jwk, "")
			must(t, err)
			data, err := runtimeData.DeviceReportData(evidence.DefaultHash)
			must(t, err)
			return func(evidence.ReportData) string { return sampleDevice(t)(data) }
		}, nil, []string{"sampledevice-report-data"}},
		{"a part made for a workload", func(t *testing.T, _ *guest) func(evidence.ReportData) string {
			return func(d evidence.ReportData) string { return sampleDevice(t)(evidence.WorkloadReportData(d.Digest())) }
		}, nil, []string{"sampledevice-report-data"}},
		{"a part that the host put in later", func(t *testing.T, _ *guest) func(evidence.ReportData) string { return sampleDevice(t) },
			func(body string) string { return strings.Replace(body, `\"svn\":\"2\"`, `\"svn\":\"3\"`, 1) }, []string{"report-data"}},
		{"a part that the host took away", func(t *testing.T, _ *guest) func(evidence.ReportData) string { return sampleDevice(t) },
			func(body string) string {
				start := strings.Index(body, `"additional_evidence":`)
				return body[:start] + `"additional_evidence":""}}`
			}, []string{"report-data", "devices"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBroker(t)
			doc := document(t, "web", "")
			b.register("web", doc, withSampleDevice)
			g := b.guest(doc)
			g.auth()
			g.devices = tt.devices(t, g)
			body := string(g.attestation())
			if tt.edit != nil {
				edited := tt.edit(body)
				if edited == body {
					t.Fatal("nothing changed")
				}
				body = edited
			}
			wantRefused(t, g.post([]byte(body)), 401, "AttestationError")
			if last := b.wantLast(audit.Attest, tt.rules[0]); !slices.Equal(last.Also, append([]string(nil), tt.rules[1:]...)) {
				t.Errorf("also denied by %v, want %v", last.Also, tt.rules[1:])
			}
		})
	}
}
