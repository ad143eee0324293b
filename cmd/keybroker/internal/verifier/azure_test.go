// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// azureWorld is a guest below a paravisor: a vTPM, and the hardware of one of two makers.
type azureWorld struct {
	tee      evidence.TEE
	tpm      *tpmWorld
	snp      *world
	tdx      *tdxWorld
	userData []byte
	// claims changes the claims before the hardware is bound to them, late after; nil for
	// none.
	claims, late func(text string) string
	rewrite      func(text string) string // of the evidence
	in           Input
	v            *Verifier
}

func newAzureWorld(t testing.TB, tee evidence.TEE) *azureWorld {
	t.Helper()
	w := &azureWorld{tee: tee, tpm: newTPMWorld(t)}
	w.in = w.tpm.in
	w.in.TEE = tee
	w.tpm.extra = w.in.ReportData.Digest()
	w.userData = make([]byte, 64)
	copy(w.userData, w.in.ReportData.Digest())
	r := owner.Registration{ID: "web", TEEs: []evidence.TEE{tee}, InitData: w.in.Registration.InitData, TestRoots: true, Azure: &owner.AzureReference{PCRs: w.in.Registration.TPM.PCRs}}
	if owner.OnSNP(tee) {
		w.snp = newWorld(t, milan())
		r.SNP, w.v = w.snp.in.Registration.SNP, w.snp.verifier
	} else {
		w.tdx = newTDXWorld(t, 5)
		r.TDX, r.AcceptUnproved = w.tdx.in.Registration.TDX, []owner.Part{owner.PartAgent} // its RTMRs are zero
	}
	w.in.Registration = r
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return w
}

// hcl is the report in the vTPM; bind makes the hardware's part of it.
func (w *azureWorld) hcl(t testing.TB, bind func(data evidence.ReportData) []byte) []byte {
	t.Helper()
	n := base64.RawURLEncoding.EncodeToString(w.tpm.key.N.Bytes())
	text := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"%s"},{"kid":"HCLEkPub","kty":"RSA","e":"AQAB","n":"AQAB"}],"vm-configuration":{"secure-boot":true},"user-data":"%X"}`, n, w.userData)
	if w.claims != nil {
		text = w.claims(text)
	}
	hardware := bind(evidence.HCLReport{Claims: []byte(text)}.Binding())
	if w.late != nil {
		text = w.late(text)
	}
	return hclReport(w.tee, hardware, text)
}

func hclReport(tee evidence.TEE, hardware []byte, claims string) []byte {
	le := binary.LittleEndian
	kind := uint32(2)
	if tee == evidence.AzTDXvTPM {
		kind = 4
	}
	out := append([]byte("HCLA"), make([]byte, 28)...)
	out = append(out, hardware...)
	out = append(out, make([]byte, 1184-len(hardware))...)
	for _, v := range []uint32{uint32(20 + len(claims)), 1, kind, 1, uint32(len(claims))} {
		out = le.AppendUint32(out, v)
	}
	return append(out, claims...)
}

func (w *azureWorld) verify(t testing.TB) Verdict {
	t.Helper()
	w.build(t)
	return w.v.Verify(w.in)
}

// build puts the evidence into w.in and the verifier into w.v.
func (w *azureWorld) build(t testing.TB) {
	t.Helper()
	message := w.tpm.message()
	sum := sha256.Sum256(message)
	signature, err := rsa.SignPKCS1v15(rand.Reader, w.tpm.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if w.tpm.forge != nil {
		w.tpm.forge(message)
	}
	listed := w.tpm.registers
	if w.tpm.listed != nil {
		listed = *w.tpm.listed
	}
	pcrs := make([]string, len(listed))
	for i := range listed {
		pcrs[i] = fmt.Sprintf(`"%x"`, listed[i])
	}
	var hcl []byte
	var member string
	if w.snp != nil {
		hcl = w.hcl(t, func(data evidence.ReportData) []byte {
			w.snp.in.ReportData = data
			return w.snp.report(t)
		})
		var vcek []byte
		for _, c := range w.snp.certs {
			if c.Type == evidence.SNPCertVCEK {
				vcek = c.DER
			}
		}
		w.v, w.in.Now = w.snp.verifier, w.snp.in.Now
		member = `"vcek":"` + base64.URLEncoding.EncodeToString(vcek) + `"`
	} else {
		var quote []byte
		hcl = w.hcl(t, func(data evidence.ReportData) []byte {
			// What a case has put there stays.
			if first, bound := w.tdx.in.ReportData.Bytes64(), data.Bytes64(); bytes.Equal(w.tdx.body[520:584], first[:]) {
				copy(w.tdx.body[520:], bound[:])
			}
			w.v = w.tdx.verifier(t)
			ev, err := evidence.ParseTDXEvidence(w.tdx.in.Evidence)
			if err != nil {
				t.Fatal(err)
			}
			quote = ev.Quote
			return make([]byte, 1024)
		})
		w.in.Now = w.tdx.in.Now
		member = `"td_quote":"` + base64.URLEncoding.EncodeToString(quote) + `"`
	}
	text := fmt.Sprintf(`{"version":2,"tpm_quote":{"signature":"%x","message":"%x","pcrs":[%s]},"hcl_report":"%s",%s}`,
		signature, message, strings.Join(pcrs, ","), base64.URLEncoding.EncodeToString(hcl), member)
	if w.rewrite != nil {
		text = w.rewrite(text)
	}
	w.in.Evidence = []byte(text)
}

// azureViolations are about what ties vTPM, hardware and handshake together.
var azureViolations = []struct {
	rule, name string
	do         func(t *testing.T, w *azureWorld)
}{
	{"format", "version 1, which binds no hardware report", func(_ *testing.T, w *azureWorld) {
		w.rewrite = func(text string) string { return strings.Replace(text, `"version":2`, `"version":1`, 1) }
	}},
	{"format", "claims without the key", func(_ *testing.T, w *azureWorld) {
		w.claims = func(text string) string { return strings.Replace(text, "HCLAkPub", "HCLOther", 1) }
	}},
	{"format", "claims with two such keys", func(_ *testing.T, w *azureWorld) {
		w.claims = func(text string) string { return strings.Replace(text, "HCLEkPub", "HCLAkPub", 1) }
	}},
	{"hardware-binding", "claims of another hardware report", func(_ *testing.T, w *azureWorld) {
		w.late = func(text string) string { return strings.Replace(text, `"secure-boot":true`, `"secure-boot":false`, 1) }
	}},
	{"quote-signature", "a quote by a key that the claims do not name", func(t *testing.T, w *azureWorld) {
		keys, err := tpmKeys()
		if err != nil {
			t.Fatal(err)
		}
		named := base64.RawURLEncoding.EncodeToString(keys[1].N.Bytes())
		mine := base64.RawURLEncoding.EncodeToString(w.tpm.key.N.Bytes())
		w.claims = func(text string) string { return strings.Replace(text, mine, named, 1) }
	}},
	{"quote-signature", "the clock changed later", func(_ *testing.T, w *azureWorld) {
		w.tpm.forge = func(message []byte) { message[len(message)-65] ^= 1 }
	}},
	{"report-data", "bound to another handshake", func(t *testing.T, w *azureWorld) { w.tpm.extra = reportData(t).Digest() }},
	{"report-data", "padded, as on other TEEs", func(_ *testing.T, w *azureWorld) {
		padded := w.in.ReportData.Bytes64()
		w.tpm.extra = padded[:]
	}},
	{"report-data", "evidence made for a workload", func(_ *testing.T, w *azureWorld) {
		w.tpm.extra = evidence.WorkloadReportData(w.in.ReportData.Digest()).Digest()
	}},
	{"user-data", "a hardware report of another handshake", func(t *testing.T, w *azureWorld) { copy(w.userData, reportData(t).Digest()) }},
	{"user-data", "none, as older paravisors", func(_ *testing.T, w *azureWorld) { w.userData = nil }},
	{"user-data", "more than this handshake's", func(_ *testing.T, w *azureWorld) { w.userData[63] = 1 }},
	{"pcr-selection", "register 4 is not quoted", func(_ *testing.T, w *azureWorld) { w.tpm.selection = []byte{0xEF, 0xFF, 0xFF} }},
	{"pcr-digest", "the digest is of other registers", func(_ *testing.T, w *azureWorld) { w.tpm.digest = make([]byte, 32) }},
	{"initdata-register", "nothing recorded", func(_ *testing.T, w *azureWorld) { w.tpm.registers[8] = [32]byte{} }},
	{"pcrs", "another register 4", func(_ *testing.T, w *azureWorld) { w.tpm.registers[4][0] ^= 1 }},
	{"pcrs", "a registration that lists no register", func(_ *testing.T, w *azureWorld) { w.in.Registration.Azure = nil }},
	{"devices", "a device that did not come along", func(_ *testing.T, w *azureWorld) {
		w.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	}},
	{"tee-listed", "SNP or TDX without a paravisor alone", func(_ *testing.T, w *azureWorld) {
		w.in.Registration.TEEs = []evidence.TEE{evidence.SNP, evidence.TDX}
	}},
	{"debug-guest", "registers of a debug image", func(_ *testing.T, w *azureWorld) { w.in.Registration.Azure.Debug = true }},
	{"initdata-listed", "initdata that was not registered", func(_ *testing.T, w *azureWorld) { w.in.Registration.InitData = nil }},
}

// eachAzureViolation calls f with a world that breaks one rule: those above, and what the
// hardware's own table has that can be said of this evidence.
func eachAzureViolation(t *testing.T, tee evidence.TEE, f func(rule, name string, w *azureWorld)) {
	for _, tt := range azureViolations {
		w := newAzureWorld(t, tee)
		tt.do(t, w)
		f(tt.rule, tt.name, w)
	}
	apart := []string{"format", "report-data", "host-data", "config-id", "event-log", "tee-listed", "initdata-listed"}
	if tee == evidence.AzTDXvTPM {
		for _, tt := range tdxViolations {
			if !slices.Contains(apart, tt.rule) {
				w := newAzureWorld(t, tee)
				w.tdx.in.Registration = w.in.Registration
				tt.do(t, w.tdx)
				w.in.Registration, w.in.Debug = w.tdx.in.Registration, w.tdx.in.Debug
				f(tt.rule, tt.name, w)
			}
		}
		return
	}
	for _, tt := range violations {
		// Azure's evidence has a place for a VCEK, and nothing else.
		if !slices.Contains(apart, tt.rule) && tt.name != "no certificate anywhere" && !strings.HasPrefix(tt.name, "a provider's key,") {
			w := newAzureWorld(t, tee)
			w.snp.in.Registration = w.in.Registration
			tt.do(t, w.snp)
			w.in.Registration, w.in.Debug = w.snp.in.Registration, w.snp.in.Debug
			f(tt.rule, tt.name, w)
		}
	}
}

func azureSentences(tee evidence.TEE) func(t *testing.T) []sentence {
	return func(t *testing.T) (list []sentence) {
		eachAzureViolation(t, tee, func(rule, name string, w *azureWorld) {
			w.build(t)
			list = append(list, sentence{rule, name, w.v, w.in})
		})
		return list
	}
}

func TestEachAzureRuleDeniesAlone(t *testing.T) {
	for _, tee := range []evidence.TEE{evidence.AzSNPvTPM, evidence.AzTDXvTPM} {
		v := newAzureWorld(t, tee).verify(t)
		wantAllowed(t, v)
		claims := asJSON(t, v.Claims)
		if v.Facts.TEE != tee || v.Facts.Measurement != strings.Repeat("ab", 48) || claims["tpm"] == nil || !v.Facts.TestRoot || v.Vector.Hardware != 2 {
			t.Errorf("%s: facts %+v, claims %v", tee, v.Facts, claims)
		}
		eachAzureViolation(t, tee, func(rule, name string, w *azureWorld) {
			t.Run(string(tee)+"/"+rule+"/"+name, func(t *testing.T) { wantDenied(t, w.verify(t), rule) })
		})
	}
}
