// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// The text and digests are those of the protocol: the primary TEE binds the parts, the
// parts are bound to nonce and key alone.
func TestAdditionalEvidenceOnTheWire(t *testing.T) {
	sample := DeviceEvidence{SampleDevice, []byte(`{"report_data":"AA==","svn":"2"}`)}
	text, err := EncodeAdditional([]DeviceEvidence{sample})
	if err != nil || text != `{"sampledevice":{"report_data":"AA==","svn":"2"}}` {
		t.Fatalf("got %s, %v", text, err)
	}
	nonce := "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	key, err := ParseJWK([]byte(`{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`))
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewRuntimeData(nonce, key, text)
	if err != nil {
		t.Fatal(err)
	}
	tail := `"nonce":"` + nonce + `","tee-pubkey":` + string(key.Canonical()) + `}`
	if want := `{"additional-evidence":"{\"sampledevice\":{\"report_data\":\"AA==\",\"svn\":\"2\"}}",` + tail; string(d.Bound()) != want {
		t.Errorf("bound\n%s, want\n%s", d.Bound(), want)
	}
	if want := `{` + tail; string(d.Wire()) != want {
		t.Errorf("devices are bound to\n%s, want\n%s", d.Wire(), want)
	}
	device, err := d.DeviceReportData(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := NewRuntimeData(nonce, key, "")
	if err != nil {
		t.Fatal(err)
	}
	if primary, err := alone.ReportData(SHA384); err != nil || primary == device {
		t.Errorf("a device's evidence would serve as the primary's, %v", err)
	}
	if again, err := alone.DeviceReportData(SHA384); err != nil || again != device {
		t.Errorf("what devices are bound to depends on the other devices, %v", err)
	}

	both, err := EncodeAdditional([]DeviceEvidence{{TPM, []byte(`{"b":1}`)}, sample})
	if err != nil || both != `{"sampledevice":{"report_data":"AA==","svn":"2"},"tpm":{"b":1}}` {
		t.Fatalf("got %s, %v", both, err)
	}
	parts, err := ParseAdditional(both)
	if err != nil || !reflect.DeepEqual(parts, []DeviceEvidence{sample, {TPM, []byte(`{"b":1}`)}}) {
		t.Fatalf("got %+v, %v", parts, err)
	}
	if none, err := EncodeAdditional(nil); err != nil || none != "" {
		t.Errorf("no devices: %q, %v", none, err)
	}
}

func TestAdditionalEvidenceThatIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a device that nobody verifies", `{"nvidia":{}}`, `unknown device "nvidia"`},
		{"one more behind a known one", `{"tpm":{},"gpu":{}}`, `unknown device "gpu"`},
		{"a primary TEE", `{"snp":{}}`, `unknown device "snp"`},
		{"another spelling", `{"TPM":{}}`, `unknown device "TPM"`},
		{"a device twice", `{"tpm":{},"tpm":{}}`, "twice"},
		{"a member of a part twice", `{"tpm":{"a":1,"a":2}}`, "twice"},
		{"no device", `{}`, "no part"},
		{"white space", ` `, "not a JSON object"},
		{"a list", `[{"tpm":{}}]`, "not a JSON object"},
		{"a part that is text", `{"tpm":"{}"}`, "not a JSON object"},
		{"text behind it", `{"tpm":{}}x`, "parsing additional evidence"},
		{"too much", `{"tpm":{"a":"` + strings.Repeat("a", MaxAdditionalEvidenceSize) + `"}}`, "at most"},
		{"a long name", `{"` + strings.Repeat("x", 1<<16) + `":{}}`, "unknown device"},
	} {
		parts, err := ParseAdditional(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 300 {
			t.Errorf("%s: got %+v, %.300v, want %q", tt.name, parts, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name  string
		parts []DeviceEvidence
	}{
		{"a device that nobody verifies", []DeviceEvidence{{"nvidia", []byte(`{}`)}}},
		{"a device twice", []DeviceEvidence{{TPM, []byte(`{}`)}, {TPM, []byte(`{}`)}}},
		{"no object", []DeviceEvidence{{TPM, []byte(`[]`)}}},
		{"no JSON", []DeviceEvidence{{TPM, []byte(`{`)}}},
		{"nothing", []DeviceEvidence{{Device: TPM}}},
		{"too much", []DeviceEvidence{{TPM, fmt.Appendf(nil, `{"a":%q}`, strings.Repeat("a", MaxAdditionalEvidenceSize))}}},
	} {
		if text, err := EncodeAdditional(tt.parts); err == nil {
			t.Errorf("%s: encoded as %.60s", tt.name, text)
		}
	}
}

func FuzzParseAdditional(f *testing.F) {
	f.Add(`{"sampledevice":{"report_data":"AA==","svn":"2"},"tpm":{"b":1}}`)
	f.Add(`{}`)
	f.Fuzz(func(t *testing.T, text string) {
		parts, err := ParseAdditional(text)
		if err != nil {
			return
		}
		again, err := EncodeAdditional(parts)
		if err != nil {
			t.Fatalf("%q parses to what cannot be written: %v", text, err)
		}
		if other, err := ParseAdditional(again); err != nil || len(other) != len(parts) {
			t.Fatalf("%q read again: %v", again, err)
		}
	})
}
