// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/casemate/casemate/agent/evidence"
)

// rsaPEM is a public key whose private half nobody needs: parsers verify nothing.
const rsaPEM = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnv/cti2GJeze1dgg7iAX
jCHUI4D8pK4+QMIr0VZqxVzLTU4D3CAh8qE6RQVIhOPN2f9nZf8Z4ECQ2ZTIVkHZ
6Bb7YVjSGmPDHZRcYjVmA1N648knzjna93SOwSGDvQVtEzf+HJiOxjUhgYibhjgW
Buy+TYd8l0UoMuSyxq+FR6C+XW20t/NSHcW6zPzErsCmaI/XrDATIzi4BzAunD0L
NHmxI9ciT3n7AORJkrZBo5FjtlmynV0RLYL25th7E9Tf7MGKCBAsjttJ7HkHHb+n
3YH/e7cytf6fS6FWskPG3sS0tXasFzH0EQbj/rYp0DYoYZyaOhtfokKg2SbfhElT
9QIDAQAB
-----END PUBLIC KEY-----
`

func tpmKey(t testing.TB) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(rsaPEM))
	if block == nil {
		t.Fatal("no key")
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return block.Bytes
}

// tpmQuote is made by go-tpm's marshaller, which is not the one under test.
func tpmQuote(edit func(*tpm2.TPMSAttest, *tpm2.TPMSQuoteInfo)) []byte {
	info := tpm2.TPMSQuoteInfo{
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0xFF, 0xFF, 0xFF}}}},
		PCRDigest: tpm2.TPM2BDigest{Buffer: bytes.Repeat([]byte{7}, 32)},
	}
	a := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, QualifiedSigner: tpm2.TPM2BName{Buffer: make([]byte, 34)},
		ExtraData: tpm2.TPM2BData{Buffer: bytes.Repeat([]byte{9}, 32)},
		ClockInfo: tpm2.TPMSClockInfo{Clock: 5, ResetCount: 3, RestartCount: 2, Safe: true}, FirmwareVersion: 1,
	}
	if edit != nil {
		edit(&a, &info)
	}
	a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &info)
	return tpm2.Marshal(a)
}

func tpmSignature() []byte {
	return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{
		Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: bytes.Repeat([]byte{1}, 256)},
	})})
}

func tpmEvidence(t testing.TB) evidence.TPMEvidence {
	e := evidence.TPMEvidence{Message: tpmQuote(nil), Signature: tpmSignature(), AttestationKey: tpmKey(t), EventLog: []byte("log")}
	e.Registers[23][31] = 0xAB
	return e
}

func TestParseTPMQuote(t *testing.T) {
	q, err := evidence.ParseTPMQuote(tpmQuote(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !q.WholeBank() || q.ResetCount != 3 || q.RestartCount != 2 || !bytes.Equal(q.ExtraData, bytes.Repeat([]byte{9}, 32)) || !bytes.Equal(q.RegisterDigest, bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("got %+v", q)
	}
	good := tpmQuote(nil)
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":         {nil, "magic"},
		"cut":             {good[:len(good)-1], "register digest"},
		"a byte more":     {append(slices.Clone(good), 0), "1 bytes left over"},
		"over the cap":    {make([]byte, 1025), "at most 1024"},
		"made outside":    {tpmQuote(func(a *tpm2.TPMSAttest, _ *tpm2.TPMSQuoteInfo) { a.Magic-- }), "no TPM made this"},
		"a certified key": {append([]byte{0xFF, 'T', 'C', 'G', 0x80, 0x17}, good[6:]...), "attestation type 0x8017"},
		"two banks": {tpmQuote(func(_ *tpm2.TPMSAttest, q *tpm2.TPMSQuoteInfo) {
			s := &q.PCRSelect.PCRSelections
			*s = append(*s, (*s)[0])
		}), "2 banks"},
		"no bank":             {tpmQuote(func(_ *tpm2.TPMSAttest, q *tpm2.TPMSQuoteInfo) { q.PCRSelect.PCRSelections = nil }), "0 banks"},
		"SHA-1":               {tpmQuote(func(_ *tpm2.TPMSAttest, q *tpm2.TPMSQuoteInfo) { q.PCRSelect.PCRSelections[0].Hash = tpm2.TPMAlgSHA1 }), "bank 0x4"},
		"a boolean that is 2": {append(append(slices.Clone(good[:92]), 2), good[93:]...), "safe is 2"},
	} {
		if _, err := evidence.ParseTPMQuote(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	short, err := evidence.ParseTPMQuote(tpmQuote(func(_ *tpm2.TPMSAttest, q *tpm2.TPMSQuoteInfo) {
		q.PCRSelect.PCRSelections[0].PCRSelect = []byte{0xFF, 0xFF, 0x7F}
	}))
	if err != nil || short.WholeBank() {
		t.Errorf("without register 23: whole %v, %v", short.WholeBank(), err)
	}
}

func TestParseTPMSignatureRefuses(t *testing.T) {
	good := tpmSignature()
	for name, raw := range map[string][]byte{
		"nothing": nil, "cut": good[:100], "a byte more": append(slices.Clone(good), 0), "RSAPSS": append([]byte{0, 0x16}, good[2:]...),
		"SHA-1": append([]byte{0, 0x14, 0, 4}, good[4:]...), "empty": {0, 0x14, 0, 0x0B, 0, 0}, "over the cap": make([]byte, 600),
	} {
		if _, err := evidence.ParseTPMSignature(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The member names and encodings are those that Trustee's tpm verifier decodes.
func TestTPMEvidenceWireForm(t *testing.T) {
	e := tpmEvidence(t)
	raw, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var wire struct {
		Quote struct {
			Signature, Message []byte // encoding/json reads padded standard base64
			PCRs               []string
		} `json:"tpm_quote"`
		Key []byte `json:"ak_public"`
		Log []byte `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(wire.Quote.Signature, e.Signature) || !bytes.Equal(wire.Quote.Message, e.Message) || !bytes.Equal(wire.Key, e.AttestationKey) ||
		len(wire.Quote.PCRs) != 24 || wire.Quote.PCRs[23] != strings.Repeat("00", 31)+"ab" || string(wire.Log) != "log" {
		t.Errorf("wire form %s", raw)
	}
	back, err := evidence.ParseTPMEvidence(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("encoded again: %s, %v", again, err)
	}
	e.EventLog = nil
	if raw, err = e.Encode(); err != nil || bytes.Contains(raw, []byte("cc_eventlog")) {
		t.Errorf("without a log: %s, %v", raw, err)
	}
}

func TestParseTPMEvidenceRefuses(t *testing.T) {
	raw, err := tpmEvidence(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	zero := `"` + strings.Repeat("00", 32) + `",`
	key := base64.StdEncoding.EncodeToString(tpmKey(t))
	for _, tt := range []struct{ name, old, new, want string }{
		{"23 registers", zero, "", "23 registers"},
		{"25 registers", zero, zero + zero, "more than 24"},
		{"a register that is a number", zero, "0,", "not a string"},
		{"a short register", zero, `"00",`, "register 0 is not 32 bytes"},
		{"a register in upper case", strings.Repeat("00", 31) + "ab", strings.Repeat("00", 31) + "AB", "lower-case"},
		{"registers that are no array", `"pcrs":[`, `"pcrs":"x","more":[`, "not an array"},
		{"an unknown member", `"ak_public"`, `"x":1,"ak_public"`, "unknown member"},
		{"a name twice", `"ak_public"`, `"ak_public":"","ak_public"`, "twice"},
		{"another case", `"ak_public"`, `"AK_public"`, "missing"},
		{"no key", key, "", "attestation key"},
		{"base64 without padding", `"cc_eventlog":"bG9n"`, `"cc_eventlog":"bG8"`, "base64"},
		{"an empty log", `"cc_eventlog":"bG9n"`, `"cc_eventlog":""`, "event log is empty"},
	} {
		text := strings.Replace(string(raw), tt.old, tt.new, 1)
		if text == string(raw) {
			t.Fatalf("%s: nothing changed", tt.name)
		}
		if _, err := evidence.ParseTPMEvidence([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := evidence.ParseTPMKey(append(tpmKey(t), 0)); err == nil {
		t.Error("a key with a byte behind it has two digests")
	}
}

// The form for a TPM has no room for the tag of workload evidence.
func TestWorkloadEvidenceCannotPassAsATPMHandshake(t *testing.T) {
	key := `{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	jwk, err := evidence.ParseJWK([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	d, err := evidence.NewRuntimeData("n", jwk, "")
	if err != nil {
		t.Fatal(err)
	}
	handshake, err := d.ReportData(evidence.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	if got := handshake.Bytes32(); !bytes.Equal(got[:], handshake.Digest()[:32]) {
		t.Errorf("got %x, want the front of %x", got, handshake.Digest())
	}
	for _, data := range [][]byte{nil, d.Bound(), handshake.Digest(), handshake.Digest()[:32]} {
		if evidence.WorkloadReportData(data).Bytes32() == handshake.Bytes32() {
			t.Errorf("workload data %q is bound as a handshake", data)
		}
	}
}

func tpmLogEvent(index, kind uint32, digest []byte, data string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, index), kind), 2)
	b = append(le.AppendUint16(b, 0x04), make([]byte, 20)...)
	b = append(le.AppendUint16(b, 0x0B), digest...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

func TestReplayTPMLog(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	locality := tpmLogEvent(0, 3, make([]byte, 32), "StartupLocality\x00\x03")
	got, err := evidence.ReplayTPMLog(eventLog(locality, tpmLogEvent(0, 8, one, "a"), tpmLogEvent(7, 1, one, ""), tpmLogEvent(7, 1, two, ""), tpmLogEvent(9, 1, two, "")))
	if err != nil {
		t.Fatal(err)
	}
	var want evidence.TPMRegisterValues
	want[0][31] = 3
	want[0] = sha256.Sum256(append(want[0][:], one...))
	want[7] = sha256.Sum256(append(want[7][:], one...))
	want[7] = sha256.Sum256(append(want[7][:], two...))
	want[9] = sha256.Sum256(append(want[9][:], two...))
	if got.Registers != want || !got.Covers(0) || !got.Covers(3) || got.Covers(9) || got.Covers(evidence.TPMEventRegister) {
		t.Errorf("got %x, want %x", got, want)
	}
	if own, err := evidence.ReplayTPMLog(eventLog(tpmLogEvent(15, 6, one, ""))); err != nil || own.Covers(0) || !own.Covers(15) {
		t.Errorf("the guest's own events alone: %v", err)
	}
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"locality behind an event":    {eventLog(tpmLogEvent(0, 8, one, ""), locality), "locality"},
		"locality twice":              {eventLog(locality, locality), "locality"},
		"locality without its number": {eventLog(tpmLogEvent(0, 3, one, "StartupLocality\x00")), "locality"},
		"no such register":            {eventLog(tpmLogEvent(24, 1, one, "")), "register index 24"},
		"SHA-384 alone":               {eventLog(logEvent(1, 4, 1)), "no SHA-256 digest"},
		"old form":                    {make([]byte, 64), "first event"},
		"cut":                         {eventLog(tpmLogEvent(0, 1, one, "abc"))[:130], "bytes left"},
		"over the cap":                {make([]byte, evidence.MaxEventLogSize+1), "at most"},
	} {
		if _, err := evidence.ReplayTPMLog(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// FuzzTPM feeds the parsers of quotes, signatures, evidence and logs: no panic, and what
// is accepted has one JSON form.
func FuzzTPM(f *testing.F) {
	raw, err := tpmEvidence(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(raw))
	f.Add(tpmQuote(nil))
	f.Add(tpmSignature())
	f.Add(eventLog(tpmLogEvent(0, 3, make([]byte, 32), "StartupLocality\x00\x03"), tpmLogEvent(0, 8, make([]byte, 32), "a")))
	f.Fuzz(func(t *testing.T, text []byte) {
		if q, err := evidence.ParseTPMQuote(text); err == nil {
			// go-tpm reads what we read.
			theirs, err := tpm2.Unmarshal[tpm2.TPMSAttest](text)
			if err != nil || !bytes.Equal(theirs.ExtraData.Buffer, q.ExtraData) {
				t.Fatalf("go-tpm: %v, %+v", err, theirs)
			}
		}
		evidence.ParseTPMSignature(text)
		evidence.ReplayTPMLog(text)
		e, err := evidence.ParseTPMEvidence(text)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := evidence.ParseTPMEvidence(again); err != nil || fmt.Sprint(back) != fmt.Sprint(e) {
			t.Fatalf("second parse: %v", err)
		}
	})
}
