// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
)

// azureCase is evidence of a guest below Azure's paravisor: three signatures, each over
// what the next one is checked by. The hardware signed a report that carries the digest of
// the claims; the claims name the vTPM's key; that key signed the registers and the
// handshake's data. The first gate fills it in.
type azureCase struct {
	in     Input
	ev     evidence.AzureEvidence
	claims evidence.HCLClaims
	snp    *snpCase // one of the two is there
	tdx    *tdxCase
	tpm    *tpmCase
}

// azureName returns what a row of the hardware is called here, "" for one without a place:
// azureFormat has read the report, initdata is in a register, and the paravisor's own
// event log is not part of the evidence. The report's data is that of the claims.
func azureName(row string) string {
	switch row {
	case "format", "host-data", "config-id", "event-log":
		return ""
	case "report-data":
		return "hardware-binding"
	}
	return row
}

// azureChecks are all rules on the hardware and those on the vTPM, as snpChecks.
func azureChecks(tee evidence.TEE) []check[*azureCase] {
	rows := []check[*azureCase]{{name: "format", gate: true, judge: azureFormat}}
	if tee == evidence.AzSNPvTPM {
		rows = append(rows, hardwareRows(snpChecks(), func(c *azureCase) *snpCase { return c.snp })...)
	} else {
		rows = append(rows, hardwareRows(tdxChecks(), func(c *azureCase) *tdxCase { return c.tdx })...)
	}
	onTPM := func(judge func(*tpmCase) (string, string, bool)) func(*azureCase) (string, string, bool) {
		return func(c *azureCase) (string, string, bool) { return judge(c.tpm) }
	}
	return append(rows, []check[*azureCase]{
		{name: "quote-signature", judge: onTPM(tpmSignature)},
		{name: "report-data", judge: azureReportData},
		{name: "user-data", judge: azureUserData},
		{name: "pcr-selection", judge: onTPM(tpmSelection)},
		{name: "pcr-digest", judge: onTPM(tpmRegisterDigest)},
		{name: "initdata-register", judge: onTPM(tpmInitData)},
	}...)
}

func hardwareRows[T any](rows []check[T], of func(*azureCase) T) (out []check[*azureCase]) {
	for _, row := range rows {
		if name := azureName(row.name); name != "" {
			out = append(out, check[*azureCase]{name: name, gate: row.gate, judge: func(c *azureCase) (string, string, bool) { return row.judge(of(c)) }})
		}
	}
	return out
}

func (v *Verifier) judgeAzure(in Input, checks []check[*azureCase]) Verdict {
	c := &azureCase{in: in}
	// What stands below the first gate needs the verifiers of both kinds of hardware.
	c.snp, c.tdx = &snpCase{v: &v.snp}, &tdxCase{v: &v.tdx}
	verdict := Verdict{Facts: Facts{TEE: in.TEE}}
	verdict.Findings, verdict.complete = run(checks, c)
	if c.tpm == nil {
		return verdict
	}
	facts := &verdict.Facts
	c.snp.fill(facts)
	if in.TEE == evidence.AzTDXvTPM {
		c.tdx.fill(facts)
	}
	facts.InitData = in.InitData.String()
	facts.AttestationKey = evidence.KeyDigest(c.claims.AttestationKey)
	for i := range facts.PCR {
		facts.PCR[i] = fmt.Sprintf("%x", c.ev.Registers[i])
	}
	if verdict.complete && len(verdict.Failed()) == 0 {
		verdict.Vector = Vector{Hardware: 2, Executables: 3, Configuration: 2}
		var err error
		verdict.Claims, err = c.claimSet()
		verdict.complete = err == nil
	}
	return verdict
}

func azureFormat(c *azureCase) (wanted, found string, ok bool) {
	err := c.parse()
	return fmt.Sprintf("%s evidence of version 2", c.in.TEE), describeError(err), err == nil
}

// parse also puts the hardware's part where its own rows look, bound to the claims instead
// of to the handshake.
func (c *azureCase) parse() (err error) {
	if c.ev, err = evidence.ParseAzureEvidence(c.in.TEE, c.in.Evidence); err != nil {
		return err
	}
	tpm := &tpmCase{in: c.in, signature: c.ev.Signature}
	if tpm.key, c.claims, err = c.ev.PublicKey(); err != nil {
		return err
	}
	tpm.ev = evidence.TPMEvidence{Message: c.ev.Message, Registers: c.ev.Registers}
	if tpm.quote, err = evidence.ParseTPMQuote(c.ev.Message); err != nil {
		return err
	}
	hardware := c.in
	hardware.ReportData = c.ev.Report.Binding()
	if c.in.TEE == evidence.AzSNPvTPM {
		c.snp.in = hardware
		c.snp.ev.Certs = []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: c.ev.VCEK}}
		if c.snp.ev.Report, err = evidence.ParseSNPReport(c.ev.Report.Hardware); err != nil {
			return err
		}
		c.snp.report = &c.snp.ev.Report
	} else {
		c.tdx.in, c.tdx.ev = hardware, evidence.TDXEvidence{Quote: c.ev.Quote}
		if c.tdx.quote, err = evidence.ParseTDXQuote(c.ev.Quote); err != nil {
			return err
		}
	}
	c.tpm = tpm
	return nil
}

// azureReportData wants the bare digest: Azure's guests do not pad it.
func azureReportData(c *azureCase) (wanted, found string, ok bool) {
	want, got := c.in.ReportData.Digest(), c.tpm.quote.ExtraData
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", got), len(want) > 0 && bytes.Equal(want, got)
}

// azureUserData ties the hardware's report itself to the handshake, so that a report of
// another time, with a vTPM's key that got out since, is noticed.
func azureUserData(c *azureCase) (wanted, found string, ok bool) {
	want, got := c.in.ReportData.Digest(), c.claims.UserData
	ok = len(want) > 0 && bytes.HasPrefix(got, want) && len(bytes.Trim(got[len(want):], "\x00")) == 0
	return fmt.Sprintf("%x and zeros", want), fmt.Sprintf("%d bytes: %x", len(got), got), ok
}

// claimSet is what Trustee's policies know such a guest by: the hardware's claims, and the
// registers under tpm.
func (c *azureCase) claimSet() ([]byte, error) {
	var raw []byte
	var err error
	if c.in.TEE == evidence.AzSNPvTPM {
		raw, err = snpClaims(c.snp.report, c.in.InitData)
	} else {
		raw, err = tdxClaims(c.tdx, c.tdx.level())
	}
	if err != nil {
		return nil, err
	}
	claims := map[string]any{}
	if err := json.Unmarshal(raw, &claims); err != nil {
		return nil, err
	}
	registers := map[string]string{}
	for i, value := range c.ev.Registers {
		registers[fmt.Sprintf("pcr%02d", i)] = fmt.Sprintf("%x", value)
	}
	claims["tpm"] = registers
	claims["report_data"] = fmt.Sprintf("%x", c.tpm.quote.ExtraData)
	claims["init_data"] = registers[fmt.Sprintf("pcr%02d", evidence.TPMInitDataRegister)]
	return json.Marshal(claims, json.Deterministic(true))
}
