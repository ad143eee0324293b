// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/testing/testdata"
)

func hclFile(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "azure", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRealHCLReports reads what two VMs of Azure held in their vTPMs: the hardware's report
// carries the digest of the claims, and no byte of the claims can change unnoticed.
func TestRealHCLReports(t *testing.T) {
	for _, tt := range []struct {
		name       string
		tee        TEE
		reportData int // offset in the hardware's report
		userData   int
	}{
		{"hcl-report-snp.bin", AzSNPvTPM, 0x50, 0},
		{"hcl-report-tdx.bin", AzTDXvTPM, 128, 64},
	} {
		raw := hclFile(t, tt.name)
		h, err := ParseHCLReport(raw)
		if err != nil || h.TEE != tt.tee {
			t.Fatalf("%s: %s, %v", tt.name, h.TEE, err)
		}
		want := h.Binding().Bytes64()
		if got := h.Hardware[tt.reportData:][:ReportDataSize]; !bytes.Equal(got, want[:]) {
			t.Errorf("%s: report data %x, claims %x", tt.name, got, want)
		}
		claims, err := h.ReadClaims()
		if err != nil || len(claims.UserData) != tt.userData {
			t.Errorf("%s: %+v, %v", tt.name, claims, err)
		}
		if _, err := ParseTPMKey(claims.AttestationKey); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		at := bytes.Index(raw, h.Claims)
		for i := range h.Claims {
			bad := slices.Clone(raw)
			bad[at+i] ^= 1
			if b, err := ParseHCLReport(bad); err == nil && b.Binding() == h.Binding() {
				t.Fatalf("%s: byte %d of the claims does not count", tt.name, i)
			}
		}
		if again, err := ParseHCLReport(bytes.TrimRight(raw, "\x00")); err != nil || !bytes.Equal(again.Claims, h.Claims) {
			t.Errorf("%s: without the zeros behind it: %v", tt.name, err)
		}
	}
	if report, err := ParseSNPReport(hclFile(t, "hcl-report-snp.bin")[32:][:SNPReportSize]); err != nil || report.Version() != 2 {
		t.Errorf("the SNP report: version %d, %v", report.Version(), err)
	}
}

func TestParseHCLReportRefuses(t *testing.T) {
	good := bytes.TrimRight(hclFile(t, "hcl-report-snp.bin"), "\x00")
	edit := func(f func(raw []byte)) []byte {
		raw := slices.Clone(good)
		f(raw)
		return raw
	}
	for _, tt := range []struct {
		name, want string
		raw        []byte
	}{
		{"nothing", "header", nil},
		{"another magic", "begins with", edit(func(raw []byte) { raw[0] = 'X' })},
		{"cut in the hardware's report", "hardware report", good[:500]},
		{"cut in the head of the claims", "head of the claims", good[:1220]},
		{"cut in the claims", "claims", good[:len(good)-1]},
		{"claims longer than all", "claims", edit(func(raw []byte) { binary.LittleEndian.PutUint32(raw[1232:], 1<<31) })},
		{"another hash", "hash type 2", edit(func(raw []byte) { raw[1228] = 2 })},
		{"a TVM report", "report type 1", edit(func(raw []byte) { raw[1224] = 1 })},
		{"something behind the claims", "behind the claims", append(slices.Clone(good), 0, 1)},
		{"too large", "at most", make([]byte, MaxHCLReportSize+1)},
	} {
		if h, err := ParseHCLReport(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %q", tt.name, h.TEE, err, tt.want)
		}
	}
}

func TestHCLClaimsRefuse(t *testing.T) {
	h, err := ParseHCLReport(hclFile(t, "hcl-report-tdx.bin"))
	if err != nil {
		t.Fatal(err)
	}
	good := string(h.Claims)
	for _, tt := range []struct{ name, old, new, want string }{
		{"no such key", "HCLAkPub", "HCLAk", "no key"},
		{"key id in another case", "HCLAkPub", "HCLAKPUB", "no key"},
		{"two such keys", "HCLEkPub", "HCLAkPub", "two keys"},
		{"keys twice", `{"keys":`, `{"keys":[],"keys":`, "malformed"},
		{"an EC key", `"kty":"RSA"`, `"kty":"EC"`, "want RSA"},
		{"a short key", `"n":"sgeo`, `"n":"AQAB","x":"sgeo`, "RSA of 17 bits"},
		{"another exponent", `"e":"AQAB"`, `"e":"Aw"`, "exponent 3"},
		{"a key in padded base64", `"e":"AQAB"`, `"e":"AQ=="`, "base64"},
		{"user data that is no hex", `"user-data":"00`, `"user-data":"zz`, "user-data"},
		{"user data of 65 bytes", `"user-data":"00`, `"user-data":"0000`, "user-data"},
		{"no JSON", `{`, `[`, "malformed"},
	} {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Fatalf("%s: nothing changed", tt.name)
		}
		if _, err := (HCLReport{Claims: []byte(text)}).ReadClaims(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// azureEvidence is well-formed and proves nothing.
func azureEvidence(t testing.TB, tee TEE) AzureEvidence {
	t.Helper()
	be := binary.BigEndian
	message := be.AppendUint16(be.AppendUint32(nil, tpmGenerated), tpmAttestQuote)
	message = append(message, 0, 0, 0, 0)
	message = append(message, make([]byte, 8+4+4+1+8)...)
	message = append(message, 0, 0, 0, 1, 0, 0x0B, 3, 0xFF, 0xFF, 0xFF, 0, 0)
	e := AzureEvidence{Message: message, Signature: []byte{1, 2}}
	if tee == AzSNPvTPM {
		e.HCL, e.VCEK = hclFile(t, "hcl-report-snp.bin"), []byte{0x30, 0xFB, 0xFF}
	} else {
		e.HCL, e.Quote = hclFile(t, "hcl-report-tdx.bin"), testdata.RawQuote
	}
	return e
}

func TestAzureEvidenceWireForm(t *testing.T) {
	for tee, member := range map[TEE]string{AzSNPvTPM: "vcek", AzTDXvTPM: "td_quote"} {
		e := azureEvidence(t, tee)
		text, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseAzureEvidence(tee, text)
		if err != nil || !bytes.Equal(back.HCL, e.HCL) || !bytes.Equal(back.VCEK, e.VCEK) || !bytes.Equal(back.Quote, e.Quote) ||
			!bytes.Equal(back.Message, e.Message) || !bytes.Equal(back.Signature, e.Signature) || back.Registers != e.Registers || back.Report.TEE != tee {
			t.Errorf("%s: %v", tee, err)
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(text, &doc); err != nil || len(doc) != 4 || doc[member] == nil || string(doc["version"]) != "2" {
			t.Errorf("%s: members %v, %v", tee, doc, err)
		}
		other := AzSNPvTPM
		if tee == AzSNPvTPM {
			other = AzTDXvTPM
		}
		good := string(text)
		for name, bad := range map[string]string{
			"version 1":            strings.Replace(good, `"version":2`, `"version":1`, 1),
			"no version":           strings.Replace(good, `"version":2,`, ``, 1),
			"a second version":     strings.Replace(good, `"version":2`, `"version":2,"version":2`, 1),
			"an unknown member":    strings.Replace(good, `"version":2`, `"version":2,"x":1`, 1),
			"upper-case hex":       strings.Replace(good, `"signature":"0102"`, `"signature":"0A"`, 1),
			"no signature":         strings.Replace(good, `"signature":"0102"`, `"signature":""`, 1),
			"standard base64":      strings.ReplaceAll(strings.ReplaceAll(good, "_", "/"), "-", "+"),
			"23 registers":         strings.Replace(good, `"pcrs":["`+strings.Repeat("0", 64)+`",`, `"pcrs":[`, 1),
			"the other's member":   strings.Replace(good, `"`+member+`"`, `"`+map[string]string{"vcek": "td_quote", "td_quote": "vcek"}[member]+`"`, 1),
			"an empty member":      good[:strings.Index(good, `"`+member+`":"`)+len(member)+4] + `"}`,
			"something behind it":  good + " {}",
			"cut":                  good[:len(good)-2],
			"a line break in text": strings.Replace(good, `"hcl_report":"`, `"hcl_report":"\n`, 1),
		} {
			if bad == good {
				t.Fatalf("%s: nothing changed", name)
			}
			if _, err := ParseAzureEvidence(tee, []byte(bad)); err == nil {
				t.Errorf("%s: %s is accepted", tee, name)
			}
		}
		if _, err := ParseAzureEvidence(other, text); err == nil {
			t.Errorf("%s is read as %s", tee, other)
		}
	}
}

func FuzzAzure(f *testing.F) {
	for _, tee := range []TEE{AzSNPvTPM, AzTDXvTPM} {
		text, err := azureEvidence(f, tee).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
	}
	f.Add(hclFile(f, "hcl-report-snp.bin"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, tee := range []TEE{AzSNPvTPM, AzTDXvTPM} {
			e, err := ParseAzureEvidence(tee, raw)
			if err != nil {
				continue
			}
			again, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := ParseAzureEvidence(tee, again); err != nil || !bytes.Equal(back.HCL, e.HCL) {
				t.Errorf("written and read: %v", err)
			}
		}
		if h, err := ParseHCLReport(raw); err == nil {
			_, _ = h.ReadClaims() // only that it returns
		}
	})
}
