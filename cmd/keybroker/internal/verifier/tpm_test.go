// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// tpmWorld is a TPM in software, written from TCG's TPM 2.0 Library part 2, and a
// registration of the guest that has it. Its fields are what the TPM signs.
type tpmWorld struct {
	key       *rsa.PrivateKey
	registers evidence.TPMRegisterValues
	extra     []byte
	selection []byte
	digest    []byte // nil: over the registers
	magic     uint32
	kind      uint16
	bank      uint16
	scheme    uint16
	listed    *evidence.TPMRegisterValues // what the evidence lists; nil: the registers
	log       []byte
	forge     func(message []byte) // changes the quote after it is signed; nil for none
	in        Input
}

var tpmKeys = sync.OnceValues(func() ([2]*rsa.PrivateKey, error) {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

func spki(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newTPMWorld(t testing.TB) *tpmWorld {
	t.Helper()
	keys, err := tpmKeys()
	if err != nil {
		t.Fatal(err)
	}
	data, sum := reportData(t), sha256.Sum256([]byte("the initdata"))
	bound := data.Bytes32()
	w := &tpmWorld{key: keys[0], extra: bound[:], selection: []byte{0xFF, 0xFF, 0xFF}, magic: 0xFF544347, kind: 0x8018, bank: 0x0B, scheme: 0x14}
	for _, i := range []int{0, 4, 7, 9} {
		w.registers[i] = evidence.ExtendTPM([32]byte{}, make([]byte, 32+i))
	}
	w.registers[evidence.TPMInitDataRegister] = evidence.ExtendTPM([32]byte{}, sum[:])
	w.in = Input{TEE: evidence.TPM, ReportData: data, InitData: Digest{evidence.SHA256, sum[:]}, Now: time.Now()}
	w.in.Registration = owner.Registration{
		ID: "web", TEEs: []evidence.TEE{evidence.TPM}, InitData: []string{w.in.InitData.String()},
		TPM: &owner.TPMReference{AttestationKeys: []string{evidence.KeyDigest(spki(t, w.key))}, PCRs: map[string][]string{
			"0": {fmt.Sprintf("%x", w.registers[0])}, "4": {strings.Repeat("11", 32), fmt.Sprintf("%x", w.registers[4])},
			"9": {fmt.Sprintf("%x", w.registers[9])}, "11": {strings.Repeat("00", 32)},
		}},
	}
	if err := w.in.Registration.Validate(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *tpmWorld) message() []byte {
	be := binary.BigEndian
	sized := func(b, v []byte) []byte { return append(be.AppendUint16(b, uint16(len(v))), v...) }
	digest := w.digest
	if digest == nil {
		sum := w.registers.Digest()
		digest = sum[:]
	}
	b := be.AppendUint16(be.AppendUint32(nil, w.magic), w.kind)
	b = sized(sized(b, make([]byte, 34)), w.extra)
	b = be.AppendUint64(b, 1000)                       // clock
	b = be.AppendUint32(be.AppendUint32(b, 7), 2)      // reset and restart count
	b = be.AppendUint64(append(b, 1), 0x2016_0511)     // safe, firmware version
	b = be.AppendUint16(be.AppendUint32(b, 1), w.bank) // one selection
	b = append(append(b, byte(len(w.selection))), w.selection...)
	return sized(b, digest)
}

func (w *tpmWorld) evidence(t testing.TB) string {
	t.Helper()
	message := w.message()
	sum := sha256.Sum256(message)
	sig, err := rsa.SignPKCS1v15(rand.Reader, w.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if w.forge != nil {
		w.forge(message)
	}
	be := binary.BigEndian
	wire := append(be.AppendUint16(be.AppendUint16(be.AppendUint16(nil, w.scheme), 0x0B), uint16(len(sig))), sig...)
	listed := w.registers
	if w.listed != nil {
		listed = *w.listed
	}
	// By hand: Encode refuses most of what is forged here.
	pcrs := make([]string, len(listed))
	for i := range listed {
		pcrs[i] = fmt.Sprintf(`"%x"`, listed[i])
	}
	log := ""
	if w.log != nil {
		log = fmt.Sprintf(`,"cc_eventlog":"%s"`, b64(w.log))
	}
	return fmt.Sprintf(`{"tpm_quote":{"signature":"%s","message":"%s","pcrs":[%s]},"ak_public":"%s"%s}`,
		b64(wire), b64(message), strings.Join(pcrs, ","), b64(spki(t, w.key)), log)
}

func (w *tpmWorld) verify(t testing.TB) Verdict {
	t.Helper()
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.in.Evidence = []byte(w.evidence(t))
	return v.Verify(w.in)
}

// tpmLog is a crypto-agile log whose events, each a register and a digest, are all of
// the SHA-256 bank.
func tpmLog(events ...tpmEvent) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 16)...)
	b := le.AppendUint32(le.AppendUint32(nil, 0), 3)
	b = append(le.AppendUint32(append(b, make([]byte, 20)...), uint32(len(spec))), spec...)
	for _, e := range events {
		b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, e.index), 4), 1)
		b = append(append(le.AppendUint16(b, 0x0B), e.digest...), 0, 0, 0, 0)
	}
	return b
}

type tpmEvent struct {
	index  uint32
	digest []byte
}

// tpmViolations has a row, or more, for each rule on TPM evidence: what makes exactly
// this rule deny.
var tpmViolations = []struct {
	rule, name string
	do         func(t *testing.T, w *tpmWorld)
}{
	{"format", "made by no TPM", func(t *testing.T, w *tpmWorld) { w.magic = 0xFF544348 }},
	{"format", "another attestation than a quote", func(t *testing.T, w *tpmWorld) { w.kind = 0x8017 }},
	{"format", "registers of the SHA-1 bank", func(t *testing.T, w *tpmWorld) { w.bank = 4 }},
	{"format", "a signature by RSAPSS", func(t *testing.T, w *tpmWorld) { w.scheme = 0x16 }},
	{"signature", "the clock changed later", func(t *testing.T, w *tpmWorld) { w.forge = func(message []byte) { message[len(message)-65] ^= 1 } }},
	{"report-data", "bound to another handshake", func(t *testing.T, w *tpmWorld) {
		other := reportData(t).Bytes32()
		w.extra = other[:]
	}},
	{"report-data", "evidence made for a workload", func(t *testing.T, w *tpmWorld) {
		data := evidence.WorkloadReportData(w.in.ReportData.Digest()).Bytes32()
		w.extra = data[:]
	}},
	{"report-data", "half of the report data", func(t *testing.T, w *tpmWorld) { w.extra = w.extra[:16] }},
	{"report-data", "the report data and more", func(t *testing.T, w *tpmWorld) { w.extra = append(slices.Clone(w.extra), 0) }},
	{"report-data", "bound to nothing", func(t *testing.T, w *tpmWorld) {
		w.in.ReportData, w.extra = evidence.ReportData{}, make([]byte, 32)
	}},
	{"pcr-selection", "register 4 is not quoted", func(t *testing.T, w *tpmWorld) { w.selection = []byte{0xEF, 0xFF, 0xFF} }},
	{"pcr-selection", "no register is quoted", func(t *testing.T, w *tpmWorld) { w.selection = nil }},
	{"pcr-digest", "the evidence lists another register 7", func(t *testing.T, w *tpmWorld) {
		listed := w.registers
		listed[7][0] ^= 1
		w.listed = &listed
	}},
	{"pcr-digest", "the digest is of other registers", func(t *testing.T, w *tpmWorld) { w.digest = make([]byte, 32) }},
	{"initdata-register", "nothing recorded", func(t *testing.T, w *tpmWorld) { w.registers[8] = [32]byte{} }},
	{"initdata-register", "the digest itself in place of its extension", func(t *testing.T, w *tpmWorld) { copy(w.registers[8][:], w.in.InitData.Sum) }},
	{"initdata-register", "recorded twice", func(t *testing.T, w *tpmWorld) {
		w.registers[8] = evidence.ExtendTPM(w.registers[8], w.in.InitData.Sum)
	}},
	{"initdata-register", "something went in before", func(t *testing.T, w *tpmWorld) {
		w.registers[8] = evidence.ExtendTPM(evidence.ExtendTPM([32]byte{}, make([]byte, 32)), w.in.InitData.Sum)
	}},
	{"initdata-register", "a sha384 document cut to 32 bytes", func(t *testing.T, w *tpmWorld) {
		w.in.InitData = Digest{evidence.SHA384, append(slices.Clone(w.in.InitData.Sum), make([]byte, 16)...)}
		w.in.Registration.InitData = []string{w.in.InitData.String()}
	}},
	{"event-log", "a log that leaves an event out", func(t *testing.T, w *tpmWorld) {
		w.log = tpmLog(tpmEvent{0, make([]byte, 32)}, tpmEvent{4, make([]byte, 32)})
	}},
	{"event-log", "a log that is none", func(t *testing.T, w *tpmWorld) { w.log = []byte("not a log") }},
	{"devices", "a device that did not come along", func(_ *testing.T, w *tpmWorld) {
		w.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	}},
	{"tee-listed", "a TEE the workload does not take", func(t *testing.T, w *tpmWorld) {
		w.in.Registration.TEEs = []evidence.TEE{evidence.SNP}
	}},
	{"initdata-listed", "initdata that was not registered", func(t *testing.T, w *tpmWorld) {
		w.in.Registration.InitData = []string{"sha256:" + strings.Repeat("11", 32)}
	}},
	{"attestation-key-listed", "a key that the owner did not pin", func(t *testing.T, w *tpmWorld) {
		keys, err := tpmKeys()
		if err != nil {
			t.Fatal(err)
		}
		w.key = keys[1]
	}},
	{"debug-guest", "initdata of a debug guest", func(t *testing.T, w *tpmWorld) { w.in.Debug = true }},
	{"debug-guest", "values of a debug image", func(t *testing.T, w *tpmWorld) { w.in.Registration.TPM.Debug = true }},
	{"pcrs", "another register 4", func(t *testing.T, w *tpmWorld) { w.registers[4][0] ^= 1 }},
	{"pcrs", "something in a register that must be zero", func(t *testing.T, w *tpmWorld) { w.registers[11][0] ^= 1 }},
	{"pcrs", "a registration that lists no register", func(t *testing.T, w *tpmWorld) { w.in.Registration.TPM.PCRs = nil }},
}

func TestEachTPMRuleDeniesAlone(t *testing.T) {
	for _, tt := range tpmViolations {
		t.Run(tt.rule+"/"+tt.name, func(t *testing.T) {
			w := newTPMWorld(t)
			wantAllowed(t, w.verify(t))
			tt.do(t, w)
			v := w.verify(t)
			wantDenied(t, v, tt.rule)
			if tt.rule == "attestation-key-listed" && v.Vector != (Vector{}) {
				t.Errorf("claims %+v for a key that nobody vouches for", v.Vector)
			}
		})
	}
}

// Every bit of the signed message counts, by the signature alone where nothing else looks.
func TestTPMFlippedByte(t *testing.T) {
	w := newTPMWorld(t)
	wantAllowed(t, w.verify(t))
	good := w.evidence(t)
	message := w.message()
	onlySignature := 0
	for at := range message {
		bad := slices.Clone(message)
		bad[at] ^= 1
		w.in.Evidence = []byte(strings.Replace(good, b64(message), b64(bad), 1))
		v := (&Verifier{}).Verify(w.in)
		if v.Allowed() {
			t.Fatalf("byte %d flipped: allowed", at)
		}
		failed := v.Failed()
		if failed[0].Rule != "format" && failed[0].Rule != "signature" {
			t.Errorf("byte %d flipped: first denied by %s", at, failed[0].Rule)
		}
		if len(failed) == 1 && failed[0].Rule == "signature" {
			onlySignature++
		}
	}
	if onlySignature < 40 {
		t.Errorf("%d bytes denied by the signature alone, want name, clock and versions", onlySignature)
	}
}

func TestTPMClaimsAndKeysInPEM(t *testing.T) {
	w := newTPMWorld(t)
	w.in.Registration.TPM.AttestationKeys = []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(t, w.key)}))}
	digest := sha256.Sum256([]byte("firmware"))
	w.registers = evidence.TPMRegisterValues{8: w.registers[8]}
	w.registers[0] = evidence.ExtendTPM([32]byte{}, digest[:])
	w.registers[4] = w.registers[0]
	w.registers[9] = w.registers[0]
	for _, i := range []string{"0", "4", "9"} {
		w.in.Registration.TPM.PCRs[i] = []string{fmt.Sprintf("%x", w.registers[0])}
	}
	w.log = tpmLog(tpmEvent{0, digest[:]}, tpmEvent{4, digest[:]})
	v := w.verify(t)
	wantAllowed(t, v)
	claims := asJSON(t, v.Claims)
	for name, want := range map[string]any{
		"pcr00": fmt.Sprintf("%x", w.registers[0]), "pcr23": strings.Repeat("00", 32), "init_data": fmt.Sprintf("%x", w.registers[8]),
		"report_data": fmt.Sprintf("%x", w.extra), "ak_public": b64(spki(t, w.key)), "event_log": true,
	} {
		if claims[name] != want {
			t.Errorf("claim %s is %v, want %v", name, claims[name], want)
		}
	}
	if v.Vector != tpmVector {
		t.Errorf("vector %+v", v.Vector)
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
