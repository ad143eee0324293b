// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
)

// Claim is one thing that was sent.
type Claim struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Note is what can be said of it without asking anybody.
	Note string `json:"note,omitempty"`
}

// Names of claims that rules are about.
const (
	claimTEE          = "tee"
	claimNonce        = "nonce"
	claimInitData     = "initdata"
	claimWorkload     = "workload"
	claimReportData   = "report data"
	claimMeasurement  = "measurement"
	claimHostData     = "host data"
	claimConfigID     = "config id"
	claimVMPL         = "vmpl"
	claimPolicy       = "policy"
	claimTCB          = "reported tcb"
	claimChip         = "chip id"
	claimVersion      = "report version"
	claimCertificates = "certificates"
	claimRegisters    = "rtmr"
	claimAttributes   = "attributes"
	claimModule       = "module signer"
	claimEventLog     = "event log"
	claimKey          = "attestation key"
	claimPCRs         = "pcrs"
	claimRecorded     = "pcr of initdata"
	claimDevices      = "devices"
)

// ofDevice names a claim about a device beside the TEE.
func ofDevice(device evidence.TEE, claim string) string { return string(device) + ": " + claim }

// claimOf names the claim that a rule of keybroker's judges; rules that are about the
// request itself have none.
func claimOf(rule string) string {
	for _, device := range []evidence.TEE{evidence.TPM, evidence.SampleDevice} {
		if rest, ok := strings.CutPrefix(rule, string(device)+"-"); ok && claimOf(rest) != "" {
			return ofDevice(device, claimOf(rest))
		}
	}
	return map[string]string{
		"tee-listed": claimTEE, "nonce": claimNonce, "initdata": claimInitData, "initdata-listed": claimInitData, "debug-guest": claimInitData, "workload": claimWorkload,
		"report-data": claimReportData, "measurement": claimMeasurement, "host-data": claimHostData, "config-id": claimConfigID,
		"vmpl": claimVMPL, "debug": claimPolicy, "migration": claimPolicy, "sept-ve": claimAttributes, "module-signer": claimModule,
		"tcb-floor": claimTCB, "tcb-minimum": claimTCB, "tcb-certified": claimTCB, "tcb-info": claimTCB, "chip-certified": claimChip,
		"report-version": claimVersion, "endorsement-key": claimCertificates, "chain": claimCertificates, "validity": claimCertificates,
		"revocation": claimCertificates, "signing-key": claimCertificates, "test-root": claimCertificates,
		"rtmr": claimRegisters, "event-log": claimEventLog,
		"attestation-key-listed": claimKey, "pcrs": claimPCRs, "pcr-selection": claimPCRs, "pcr-digest": claimPCRs, "initdata-register": claimRecorded,
		"devices": claimDevices, "composite": claimDevices, "additional-evidence": claimDevices,
	}[rule]
}

// sent lists what an attestation says.
func sent(t kbs.Transcript) ([]Claim, error) {
	a, err := evidence.ParseAttestation(t.Sent)
	if err != nil {
		return nil, fmt.Errorf("reading what was sent: %w", err)
	}
	bound, err := a.RuntimeData.ReportData(t.Hash)
	if err != nil {
		return nil, fmt.Errorf("reading what was sent: %w", err)
	}
	doc, documents := document(a.InitData)
	claims := append([]Claim{{Name: claimTEE, Value: string(t.TEE)}, {Name: claimNonce, Value: a.RuntimeData.Nonce()}}, documents...)
	var read []Claim
	switch t.TEE {
	case evidence.SNP:
		read, err = snp(a, bound, doc)
	case evidence.TDX:
		read, err = tdx(a, bound, doc)
	case evidence.TPM:
		read, err = tpm(a.Evidence, bound, doc)
	case evidence.Sample:
		read, err = sample(a.Evidence, bound)
	default:
		err = fmt.Errorf("evidence of %.32q is not known here", t.TEE)
	}
	if err != nil {
		read = []Claim{{Name: "evidence", Value: fmt.Sprintf("%d bytes", len(a.Evidence)), Note: "not readable: " + err.Error()}}
	}
	return append(append(claims, read...), devices(a, t.Hash)...), nil
}

// devices are the claims of those beside the TEE, none without any.
func devices(a evidence.Attestation, hash evidence.HashAlgorithm) []Claim {
	text := a.RuntimeData.AdditionalEvidence()
	if text == "" {
		return nil
	}
	parts, err := evidence.ParseAdditional(text)
	bound, hashed := a.RuntimeData.DeviceReportData(hash)
	if err = errors.Join(err, hashed); err != nil {
		return []Claim{{Name: claimDevices, Value: fmt.Sprintf("%d bytes", len(text)), Note: "not readable: " + err.Error()}}
	}
	var names []string
	var claims []Claim
	for _, part := range parts {
		names = append(names, string(part.Device))
		var read []Claim
		var err error
		if part.Device == evidence.TPM {
			read, err = tpm(part.Evidence, bound, nil)
		} else {
			read, err = sample(part.Evidence, bound)
		}
		if err != nil {
			read = []Claim{{Name: "evidence", Value: fmt.Sprintf("%d bytes", len(part.Evidence)), Note: "not readable: " + err.Error()}}
		}
		for _, c := range read {
			if c.Name != claimRecorded { // the TEE's evidence carries initdata
				c.Name = ofDevice(part.Device, c.Name)
				claims = append(claims, c)
			}
		}
	}
	return append([]Claim{{Name: claimDevices, Value: strings.Join(names, " "), Note: "the TEE's report binds their evidence"}}, claims...)
}

// document describes initdata, nil for none or one that cannot be read.
func document(raw []byte) (*initdata.InitData, []Claim) {
	if raw == nil {
		return nil, []Claim{{Name: claimInitData, Value: "none"}}
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		return nil, []Claim{{Name: claimInitData, Value: fmt.Sprintf("%d bytes", len(raw)), Note: "not readable: " + err.Error()}}
	}
	claims := []Claim{{Name: claimInitData, Value: fmt.Sprintf("%s:%x", d.Algorithm, d.Digest()), Note: fmt.Sprintf("%d bytes", len(raw))}}
	var file struct {
		Workload string `toml:"workload"`
	}
	if _, err := toml.Decode(d.Data["casemate.toml"], &file); err == nil && file.Workload != "" {
		claims = append(claims, Claim{Name: claimWorkload, Value: file.Workload, Note: "as initdata's casemate.toml says"})
	}
	return d, claims
}

func boundNote(ok bool) string {
	if ok {
		return "it binds the nonce and the key that were sent"
	}
	return "it does NOT bind the nonce and the key that were sent"
}

func digestNote(doc *initdata.InitData, value []byte) string {
	switch {
	case initdata.IsZero(value):
		return "the launch bound no initdata"
	case doc == nil:
		return "no initdata to compare it with"
	case doc.Match(value) == nil:
		return "it is the digest of the initdata that was sent"
	}
	return "it is NOT the digest of the initdata that was sent"
}

func snp(a evidence.Attestation, bound evidence.ReportData, doc *initdata.InitData) ([]Claim, error) {
	e, err := evidence.ParseSNPEvidence(a.Evidence)
	if err != nil {
		return nil, err
	}
	r, want := &e.Report, bound.Bytes64()
	var kinds []string
	for _, c := range e.Certs {
		kinds = append(kinds, string(c.Type))
	}
	if kinds == nil {
		kinds = []string{"none"}
	}
	tcb := r.ReportedTCB()
	return []Claim{
		{Name: claimVersion, Value: fmt.Sprint(r.Version())},
		{Name: claimReportData, Value: hex.EncodeToString(r.ReportData()), Note: boundNote(bytes.Equal(r.ReportData(), want[:]))},
		{Name: claimMeasurement, Value: hex.EncodeToString(r.Measurement())},
		{Name: claimHostData, Value: hex.EncodeToString(r.HostData()), Note: digestNote(doc, r.HostData())},
		{Name: claimVMPL, Value: fmt.Sprint(r.VMPL())},
		{Name: claimPolicy, Value: fmt.Sprintf("%#x", uint64(r.Policy())), Note: fmt.Sprintf("debug %t, migration agent %t", r.Policy().Debug(), r.Policy().MigrateMA())},
		{Name: claimTCB, Value: fmt.Sprintf("fmc %d, bootloader %d, tee %d, snp %d, microcode %d", tcb.FMC, tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode), Note: fmt.Sprint("on ", r.Product())},
		{Name: claimChip, Value: hex.EncodeToString(r.ChipID())},
		{Name: claimCertificates, Value: strings.Join(kinds, " "), Note: "from the host; the relying party may have others"},
	}, nil
}

func tdx(a evidence.Attestation, bound evidence.ReportData, doc *initdata.InitData) ([]Claim, error) {
	e, err := evidence.ParseTDXEvidence(a.Evidence)
	if err != nil {
		return nil, err
	}
	q, err := evidence.ParseTDXQuote(e.Quote)
	if err != nil {
		return nil, err
	}
	b, want := q.Body, bound.Bytes64()
	claims := []Claim{
		{Name: claimVersion, Value: fmt.Sprint(q.Version())},
		{Name: claimReportData, Value: hex.EncodeToString(b.ReportData()), Note: boundNote(bytes.Equal(b.ReportData(), want[:]))},
		{Name: claimMeasurement, Value: hex.EncodeToString(b.MRTD())},
		{Name: claimConfigID, Value: hex.EncodeToString(b.MRConfigID()), Note: digestNote(doc, b.MRConfigID())},
		{Name: claimPolicy, Value: fmt.Sprintf("debug %t, migration %t", b.Attributes().Debug(), b.Attributes().Migratable())},
		{Name: claimAttributes, Value: fmt.Sprintf("%#x", uint64(b.Attributes())), Note: fmt.Sprintf("sept_ve_disable %t", b.Attributes().SEPTVEDisable())},
		{Name: claimModule, Value: hex.EncodeToString(b.MRSignerSeam())},
		{Name: claimTCB, Value: hex.EncodeToString(b.TCBSVN())},
		{Name: claimCertificates, Value: fmt.Sprintf("a PCK chain of %d bytes", len(q.PCKChain))},
	}
	registers := make([]string, 4)
	for i := range registers {
		registers[i] = hex.EncodeToString(b.RTMR(i))
	}
	claims = append(claims, Claim{Name: claimRegisters, Value: strings.Join(registers, " ")})
	return append(claims, eventLog(e.EventLog, b)), nil
}

func eventLog(raw []byte, b evidence.TDReport) Claim {
	c := Claim{Name: claimEventLog, Value: fmt.Sprintf("%d bytes", len(raw))}
	if raw == nil {
		c.Value = "none"
		return c
	}
	registers, err := evidence.ReplayEventLog(raw)
	if err != nil {
		c.Note = "not readable: " + err.Error()
		return c
	}
	c.Note = "it replays to the registers"
	for i := range registers {
		if !bytes.Equal(registers[i][:], b.RTMR(i)) {
			c.Note = fmt.Sprintf("it does NOT replay to RTMR%d", i)
		}
	}
	return c
}

func tpm(raw []byte, bound evidence.ReportData, doc *initdata.InitData) ([]Claim, error) {
	e, err := evidence.ParseTPMEvidence(raw)
	if err != nil {
		return nil, err
	}
	q, err := evidence.ParseTPMQuote(e.Message)
	if err != nil {
		return nil, err
	}
	want := bound.Bytes32()
	claims := []Claim{
		{Name: claimReportData, Value: hex.EncodeToString(q.ExtraData), Note: boundNote(bytes.Equal(q.ExtraData, want[:]))},
		{Name: claimKey, Value: evidence.KeyDigest(e.AttestationKey)},
		{Name: claimEventLog, Value: fmt.Sprintf("%d bytes", len(e.EventLog))},
	}
	digest, recorded := e.Registers.Digest(), e.Registers[evidence.TPMInitDataRegister]
	var pcrs []string
	for i, value := range e.Registers {
		if value != ([32]byte{}) {
			pcrs = append(pcrs, fmt.Sprintf("%d=%x", i, value))
		}
	}
	note := "the rest is zero"
	if !bytes.Equal(digest[:], q.RegisterDigest) {
		note = "they are NOT what was signed"
	}
	claims = append(claims, Claim{Name: claimPCRs, Value: strings.Join(pcrs, " "), Note: note})
	note = "no initdata to compare it with"
	switch {
	case recorded == [32]byte{}:
		note = "no initdata was recorded"
	case doc != nil && recorded == evidence.ExtendTPM([32]byte{}, doc.Digest()):
		note = "it records the initdata that was sent"
	case doc != nil:
		note = "it does NOT record the initdata that was sent"
	}
	return append(claims, Claim{Name: claimRecorded, Value: hex.EncodeToString(recorded[:]), Note: note}), nil
}

func sample(raw []byte, bound evidence.ReportData) ([]Claim, error) {
	e, err := evidence.ParseSampleEvidence(raw)
	if err != nil {
		return nil, err
	}
	return []Claim{{Name: claimReportData, Value: hex.EncodeToString(e.ReportData), Note: boundNote(bytes.Equal(e.ReportData, bound.Digest()))}}, nil
}
