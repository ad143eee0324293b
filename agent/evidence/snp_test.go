// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/verify/testdata"
)

// fullReport returns a report of that version with every defined byte set.
func fullReport(version uint32, family, model byte) []byte {
	raw := make([]byte, SNPReportSize)
	for i := range raw {
		raw[i] = byte(i%251) + 1
	}
	binary.LittleEndian.PutUint32(raw, version)
	r := SNPReport{raw: [SNPReportSize]byte(raw)}
	r.raw[snpFamily], r.raw[snpModel] = family, model
	if p, err := snpProduct(version, family, model); err == nil {
		r.product = p
	}
	for _, span := range r.reserved() {
		clear(r.raw[span[0]:span[1]])
	}
	return r.Raw()
}

func mustSNP(t testing.TB, raw []byte) SNPReport {
	t.Helper()
	r, err := ParseSNPReport(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSNPReportsSurviveTheJSONForm(t *testing.T) {
	for _, tc := range []struct {
		version       uint32
		family, model byte
		product       SNPProduct
	}{
		{2, 0, 0, Milan}, {3, 0x19, 0x01, Milan}, {3, 0x19, 0x11, Genoa}, {4, 0x19, 0xA0, Genoa},
		{5, 0x19, 0xAF, Genoa}, {3, 0x1A, 0x02, Turin}, {5, 0x1A, 0x11, Turin},
	} {
		name := fmt.Sprintf("v%d %#x/%#x", tc.version, tc.family, tc.model)
		raw := fullReport(tc.version, tc.family, tc.model)
		r := mustSNP(t, raw)
		if r.Product() != tc.product {
			t.Errorf("%s: product %s, want %s", name, r.Product(), tc.product)
		}
		text, err := SNPEvidence{Report: r}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseSNPEvidence(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(back.Report.Raw(), raw) {
			t.Errorf("%s: rebuilt report differs", name)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s: second encoding differs (%v)", name, err)
		}
	}
}

// A report that AMD hardware signed keeps its valid signature through JSON.
func TestRealSNPReportKeepsItsSignature(t *testing.T) {
	cert, err := x509.ParseCertificate(testdata.VcekBytes)
	if err != nil {
		t.Fatal(err)
	}
	r := mustSNP(t, testdata.AttestationBytes)
	chain := []SNPCert{{Type: SNPCertVCEK, DER: testdata.VcekBytes}}
	text, err := SNPEvidence{Report: r, Certs: chain}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseSNPEvidence(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Report.Raw(), testdata.AttestationBytes) {
		t.Fatal("rebuilt report differs from the recorded one")
	}
	if !bytes.Equal(back.Find(SNPCertVCEK), testdata.VcekBytes) || back.Find(SNPCertARK) != nil {
		t.Error("certificates changed on the way")
	}
	rLE, sLE := back.Report.SignatureRS()
	slices.Reverse(rLE)
	slices.Reverse(sLE)
	digest := sha512.Sum384(back.Report.Signed())
	if !ecdsa.Verify(cert.PublicKey.(*ecdsa.PublicKey), digest[:], new(big.Int).SetBytes(rLE), new(big.Int).SetBytes(sLE)) {
		t.Error("signature of the rebuilt report does not verify")
	}
}

func TestSNPJSONMapping(t *testing.T) {
	raw := fullReport(5, 0x1A, 0x02)
	copy(raw[snpCurrentTCB:], []byte{9, 1, 2, 3, 0, 0, 0, 7})
	copy(raw[snpCurrent:], []byte{21, 55, 1})
	binary.LittleEndian.PutUint64(raw[snpPolicy:], 1<<63|0x30000)
	text, err := SNPEvidence{Report: mustSNP(t, raw)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Report map[string]json.RawMessage `json:"attestation_report"`
		Chain  json.RawMessage            `json:"cert_chain"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]string{
		"version":      "5",
		"policy":       "9223372036854972416",
		"current_tcb":  `{"fmc":9,"bootloader":1,"tee":2,"snp":3,"microcode":7}`,
		"current":      `{"major":1,"minor":55,"build":21}`,
		"cpuid_fam_id": "26",
	} {
		if got := string(doc.Report[member]); got != want {
			t.Errorf("%s: got %s, want %s", member, got, want)
		}
	}
	if string(doc.Chain) != "null" || len(doc.Report) != 29 {
		t.Errorf("chain %s, %d members, want null and 29", doc.Chain, len(doc.Report))
	}

	copy(raw, fullReport(2, 0, 0))
	copy(raw[snpCurrentTCB:], []byte{1, 2, 0, 0, 0, 0, 3, 7})
	if text, err = (SNPEvidence{Report: mustSNP(t, raw)}).Encode(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"current_tcb":{"fmc":null,"bootloader":1,"tee":2,"snp":3,"microcode":7}`,
		`"cpuid_fam_id":null`, `"launch_mit_vector":null`,
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("version 2 evidence lacks %s", want)
		}
	}
}

func TestSNPAccessors(t *testing.T) {
	r := mustSNP(t, fullReport(5, 0x19, 0x11))
	for name, n := range map[string][2]int{
		"report data": {len(r.ReportData()), 64}, "measurement": {len(r.Measurement()), 48},
		"host data": {len(r.HostData()), 32}, "chip id": {len(r.ChipID()), 64}, "signed": {len(r.Signed()), 0x2A0},
		"family id": {len(r.FamilyID()), 16}, "image id": {len(r.ImageID()), 16}, "report id": {len(r.ReportID()), 32},
		"report id ma": {len(r.ReportIDMA()), 32}, "id key": {len(r.IDKeyDigest()), 48}, "author key": {len(r.AuthorKeyDigest()), 48},
	} {
		if n[0] != n[1] {
			t.Errorf("%s: %d bytes, want %d", name, n[0], n[1])
		}
	}
	if r.HostData()[0] != r.raw[0xC0] || r.ChipID()[0] != r.raw[0x1A0] || r.Measurement()[0] != r.raw[0x90] {
		t.Error("a field is read at the wrong offset")
	}
	if family, model, _, ok := r.CPU(); !ok || family != 0x19 || model != 0x11 {
		t.Errorf("CPU is %#x/%#x, %v", family, model, ok)
	}
	p := SNPPolicy(1<<19 | 1<<16 | 0x0137)
	if !p.Debug() || !p.SMT() || p.MigrateMA() || p.SingleSocket() || p.ABIMajor() != 1 || p.ABIMinor() != 0x37 {
		t.Errorf("policy %#x is read wrongly", uint64(p))
	}
	if !SNPPolicy(1<<18).MigrateMA() || !SNPPolicy(1<<20).SingleSocket() {
		t.Error("policy bits 18 and 20 are read wrongly")
	}
}

func TestParseSNPReportRefuses(t *testing.T) {
	good := fullReport(5, 0x19, 0x11)
	change := func(at int, b byte) []byte {
		raw := bytes.Clone(good)
		raw[at] = b
		return raw
	}
	for _, tc := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"truncated", good[:SNPReportSize-1], "got 1183 bytes"},
		{"with a tail", append(bytes.Clone(good), 0), "got 1185 bytes"},
		{"empty", nil, "got 0 bytes"},
		{"version 1", change(0, 1), "version is 1"},
		{"version 6", change(0, 6), "version is 6"},
		{"version 4294967045", change(3, 0xff), "version is 4278190085"},
		{"Rome", fullReport(3, 0x17, 0x31), "family 0x17"},
		{"unknown Zen 5", fullReport(3, 0x1A, 0x12), "model 0x12"},
		{"reserved after key info", change(0x4C, 1), "byte 0x4c"},
		{"reserved after CPUID", change(0x18B, 1), "byte 0x18b"},
		{"reserved after versions", change(0x1EF, 1), "byte 0x1ef"},
		{"reserved before signature", change(0x29F, 1), "byte 0x29f"},
		{"reserved in signature", change(0x49F, 1), "byte 0x49f"},
		{"reserved in TCB", change(0x182, 1), "byte 0x182"},
	} {
		if _, err := ParseSNPReport(tc.raw); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestParseSNPEvidenceRefuses(t *testing.T) {
	text, err := SNPEvidence{
		Report: mustSNP(t, fullReport(3, 0x19, 0x01)),
		Certs:  []SNPCert{{Type: SNPCertVCEK, DER: []byte{1, 2}}},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	ok := string(text)
	swap := func(from, to string) string {
		if !strings.Contains(ok, from) {
			t.Fatalf("fixture lacks %s", from)
		}
		return strings.Replace(ok, from, to, 1)
	}
	hostData := `"host_data":[`
	wantRefused(t, ParseSNPEvidence, [][3]string{
		{"version 6", swap(`"version":3`, `"version":6`), "version is 6"},
		{"two versions", swap(`"version":3`, `"version":3,"version":4`), "occurs twice"},
		{"two host datas", swap(hostData, `"host_data":[],`+hostData), "occurs twice"},
		{"measurement in capitals", swap(`"measurement"`, `"Measurement"`), "missing"},
		{"unknown member", swap(hostData, `"debug":false,`+hostData), `unknown member "debug"`},
		{"unknown member outside", swap(`"cert_chain"`, `"raw":"","cert_chain"`), `unknown member "raw"`},
		{"missing vmpl", swap(`"vmpl":`, `"vmp1":`), `"vmpl": missing`},
		{"null report data", swap(`"report_data":[`, `"report_data":null,"x":[`), "missing"},
		{"byte 256", swap(hostData, hostData+`256,`), "0 to 255"},
		{"byte -1", swap(hostData, hostData+`-1,`), "0 to 255"},
		{"byte 1.0", swap(hostData, hostData+`1.0,`), "0 to 255"},
		{"byte 1e1", swap(hostData, hostData+`1e1,`), "0 to 255"},
		{"byte as text", swap(hostData, hostData+`"1",`), "0 to 255"},
		{"nested array", swap(hostData, hostData+`[1],`), "0 to 255"},
		{"one byte more", swap(hostData, hostData+`1,`), "more than 32"},
		{"one byte less", swap(`"vmpl":`, `"host_data":[1],"vmpl":`), "occurs twice"},
		{"base64 text for bytes", swap(hostData, `"host_data":"AAAA","x":[`), "not an array"},
		{"fmc on Milan", swap(`"fmc":null`, `"fmc":0`), "null elsewhere"},
		{"mit vector in version 3", swap(`"launch_mit_vector":null`, `"launch_mit_vector":0`), "present in a version 3"},
		{"no CPU in version 3", swap(`"cpuid_step":`, `"cpuid_step":null,"x":`), "missing in a version 3"},
		{"tcb byte 256", swap(`"microcode":`, `"microcode":256,"x":`), "8-bit"},
		{"policy above 64 bits", swap(`"policy":`, `"policy":18446744073709551616,"x":`), "64-bit"},
		{"vmpl above 32 bits", swap(`"vmpl":`, `"vmpl":4294967296,"x":`), "32-bit"},
		{"negative zero", swap(`"vmpl":`, `"vmpl":-0,"x":`), "32-bit"},
		{"unknown certificate", swap(`"VCEK"`, `"PDH"`), "unknown certificate type"},
		{"OTHER without GUID", swap(`"VCEK"`, `{"OTHER":"x"}`), "hex digits"},
		{"OTHER twice", swap(`"VCEK"`, `{"OTHER":"a","OTHER":"b"}`), "occurs twice"},
		{"empty certificate", swap(`[1,2]}]`, `[]}]`), "is 0 bytes"},
		{"huge certificate", swap(`[1,2]}]`, `[1`+strings.Repeat(",1", MaxSNPCertSize)+`]}]`), "more than 16384"},
		{"two VCEKs", swap(`[1,2]}]`, `[1,2]},{"cert_type":"VCEK","data":[3]}]`), "two certificates"},
		{"13 certificates", swap(`[{"cert_type"`, `[`+strings.Repeat(`{},`, 12)+`{"cert_type"`), "13 certificates"},
		{"chain an object", swap(`"cert_chain":[`, `"cert_chain":{},"x":[`), "unknown member"},
		{"too big", ok + strings.Repeat(" ", MaxSNPEvidenceSize), "at most"},
		{"truncated", ok[:len(ok)/2], "malformed"},
	})
	if e, err := ParseSNPEvidence([]byte(swap(`[{"cert_type":"VCEK","data":[1,2]}]`, `[]`))); err != nil || len(e.Certs) != 0 {
		t.Errorf("empty chain: %v", err)
	}
	if e, err := ParseSNPEvidence([]byte(strings.Replace(ok, `"launch_mit_vector":null,"current_mit_vector":null,`, ``, 1))); err != nil {
		t.Errorf("absent vectors: %v, %v", e.Certs, err)
	}
}

func TestSNPCertsInEvidence(t *testing.T) {
	r := mustSNP(t, fullReport(3, 0x19, 0x01))
	other := SNPCert{Type: SNPCertOther, GUID: "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6", DER: []byte{3}}
	certs := []SNPCert{{Type: SNPCertARK, DER: []byte{1}}, {Type: SNPCertVLEK, DER: []byte{2}}, other}
	text, err := SNPEvidence{Report: r, Certs: certs}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseSNPEvidence(text)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(back.Certs) != fmt.Sprint(certs) {
		t.Errorf("got %v, want %v", back.Certs, certs)
	}
	text, err = SNPEvidence{Report: r, Certs: certs[:1]}.Encode()
	if err != nil || !bytes.HasSuffix(text, []byte(`"cert_chain":null}`)) {
		t.Errorf("chain without a leaf is not null (%v)", err)
	}
	for name, bad := range map[string]SNPCert{
		"no type": {DER: []byte{1}}, "GUID on a VCEK": {Type: SNPCertVCEK, GUID: other.GUID, DER: []byte{1}},
		"upper-case GUID": {Type: SNPCertOther, GUID: strings.ToUpper(other.GUID), DER: []byte{1}},
	} {
		if _, err := (SNPEvidence{Report: r, Certs: []SNPCert{bad}}).Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	if _, err := (SNPEvidence{}).Encode(); err == nil {
		t.Error("evidence without a report encoded")
	}
}

func TestTDXAndSampleEvidence(t *testing.T) {
	for _, in := range []TDXEvidence{{Quote: []byte{4, 0}}, {Quote: []byte{4, 0}, EventLog: []byte{1, 2, 3}}} {
		text, err := in.Encode()
		if err != nil {
			t.Fatal(err)
		}
		out, err := ParseTDXEvidence(text)
		if err != nil || !bytes.Equal(out.Quote, in.Quote) || !bytes.Equal(out.EventLog, in.EventLog) {
			t.Errorf("%s: got %v, %v", text, out, err)
		}
	}
	text, err := TDXEvidence{Quote: []byte{4, 0}}.Encode()
	if err != nil || string(text) != `{"cc_eventlog":null,"quote":"BAA="}` {
		t.Errorf("got %s, %v", text, err)
	}
	wantRefused(t, ParseTDXEvidence, [][3]string{
		{"no quote", `{"cc_eventlog":null}`, "missing"},
		{"empty quote", `{"quote":""}`, "quote is 0 bytes"},
		{"unpadded quote", `{"quote":"BAA"}`, "canonical"},
		{"quote with line break", `{"quote":"BA\nA="}`, "canonical"},
		{"huge quote", `{"quote":"` + strings.Repeat("AAAA", MaxTDXQuoteSize/3+1) + `"}`, "want 1 to"},
		{"empty event log", `{"quote":"BAA=","cc_eventlog":""}`, "event log is empty"},
		{"event log a list", `{"quote":"BAA=","cc_eventlog":[]}`, "not a string"},
		{"second quote", `{"quote":"BAA=","quote":"BAE="}`, "occurs twice"},
		{"unknown member", `{"quote":"BAA=","aa_eventlog":""}`, "unknown member"},
	})
	wantRefused(t, ParseSampleEvidence, [][3]string{
		{"65 bytes", `{"svn":"1","report_data":"` + encodeB64Std(make([]byte, 65)) + `"}`, "65 bytes"},
		{"url alphabet", `{"svn":"1","report_data":"__8="}`, "canonical"},
		{"svn number", `{"svn":1,"report_data":""}`, "not a string"},
		{"unknown member", `{"svn":"1","report_data":"","launch_digest":"x"}`, "unknown member"},
	})
}
