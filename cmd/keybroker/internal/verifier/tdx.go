// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

type tdxVerifier struct {
	intel, test *x509.Certificate // test is nil for none
	collateral  *collateral
}

func newTDXVerifier(c Config, collateral *collateral) (tdxVerifier, error) {
	intel, err := parseRoot(intelRootPEM)
	if err != nil {
		return tdxVerifier{}, fmt.Errorf("loading Intel's root: %w", err)
	}
	v := tdxVerifier{intel: intel.ark, collateral: collateral}
	if c.TDXTestRoot != nil {
		test, err := parseRoot(c.TDXTestRoot)
		if err != nil {
			return tdxVerifier{}, fmt.Errorf("loading TDX test root: %w", err)
		}
		v.test = test.ark
	}
	return v, nil
}

// tdxCase is one quote under judgement. The gates fill it in; what the collateral says
// of it stays empty when there is none.
type tdxCase struct {
	in    Input
	v     *tdxVerifier
	ev    evidence.TDXEvidence
	quote *evidence.TDXQuote
	pck   *pck
	// levels are those of platform, module and quoting enclave that tables were found for.
	levels []tcbLevel
}

// tdxChecks are the rules on TDX evidence, as snpChecks.
func tdxChecks() []check[*tdxCase] {
	return []check[*tdxCase]{
		{name: "format", gate: true, judge: tdxFormat},
		{name: "chain", gate: true, judge: tdxChain},
		{name: "validity", judge: tdxValidity},
		{name: "revocation", judge: tdxRevocation},
		{name: "qe-signature", judge: tdxQESignature},
		{name: "attestation-key", judge: tdxAttestationKey},
		{name: "signature", judge: tdxSignature},
		{name: "tcb-info", judge: tdxTCBInfo},
		{name: "qe-identity", judge: tdxEnclave},
		{name: "debug", judge: tdxDebug},
		{name: "migration", judge: tdxMigration},
		{name: "sept-ve", judge: tdxSEPTVE},
		{name: "module-signer", judge: tdxModuleSigner},
		{name: "report-data", judge: tdxReportData},
		{name: "config-id", judge: tdxConfigID},
		{name: "event-log", judge: tdxEventLog},
	}
}

func (v *tdxVerifier) judge(in Input, checks []check[*tdxCase]) Verdict {
	c := &tdxCase{in: in, v: v}
	verdict := Verdict{Facts: Facts{TEE: evidence.TDX}}
	verdict.Findings, verdict.complete = run(checks, c)
	c.fill(&verdict.Facts)
	if verdict.complete && len(verdict.Failed()) == 0 {
		verdict.Vector = Vector{Hardware: 2, Executables: 3, Configuration: 2}
		var err error
		verdict.Claims, err = tdxClaims(c, c.level())
		verdict.complete = err == nil
	}
	return verdict
}

// fill tells what the quote says, as far as it was read.
func (c *tdxCase) fill(f *Facts) {
	if c.quote == nil {
		return
	}
	f.Measurement = fmt.Sprintf("%x", c.quote.Body.MRTD())
	f.InitData = c.in.InitData.String()
	for i := range f.RTMR {
		f.RTMR[i] = fmt.Sprintf("%x", c.quote.Body.RTMR(i))
	}
	f.TestRoot = c.pck != nil && c.pck.test
	level := c.level()
	f.TCBStatus, f.TCBDate = level.Status, level.Date.UTC().Format(time.DateOnly)
}

// level is the worst status of platform, module and quoting enclave, the oldest date
// and all advisories. Without all of the tables the status is owner.TCBUnknown.
func (c *tdxCase) level() tcbLevel {
	worst := tcbLevel{Status: owner.TCBUnknown}
	if len(c.levels) == 0 {
		return worst
	}
	worst = c.levels[0]
	for _, l := range c.levels[1:] {
		if owner.TCBRank(l.Status) > owner.TCBRank(worst.Status) {
			worst.Status = l.Status
		}
		if l.Date.Before(worst.Date) {
			worst.Date = l.Date
		}
		worst.Advisories = append(worst.Advisories[:len(worst.Advisories):len(worst.Advisories)], l.Advisories...)
	}
	return worst
}

// tolerant says that the registration does without collateral.
func (c *tdxCase) tolerant() bool {
	return c.in.Registration.TDX != nil && c.in.Registration.TDX.AcceptMissingCollateral
}

// table reads one of Intel's signed tables. One that is not valid now is an error.
func (c *tdxCase) table(name, member string, into interface{ window() validFor }) error {
	signer, err := c.v.collateral.tdxSigner(c.pck.root)
	if err != nil {
		return err
	}
	if list := c.v.collateral.revocations(c.pck.root); list != nil {
		for _, entry := range list.RevokedCertificateEntries {
			if revokes(list, entry, signer) {
				return errors.New("the certificate that signs tables is revoked")
			}
		}
	}
	text, err := c.v.collateral.read(name, maxTDXCollateral)
	if err != nil {
		return err
	}
	body, err := signedBody(text, member, signer)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading %s: malformed", member)
	}
	now, window := c.in.Now, into.window()
	if now.Before(window.issued) || !now.Before(window.next) || now.Before(signer.NotBefore) || now.After(signer.NotAfter) {
		return fmt.Errorf("%s is valid from %s to %s", member, window.issued.Format(time.RFC3339), window.next.Format(time.RFC3339))
	}
	return nil
}

// tdxClaimSet are the claims that Trustee's policies know a TDX guest by, except for
// uefi_event_logs.
type tdxClaimSet struct {
	Quote struct {
		Body map[string]string `json:"body"`
	} `json:"quote"`
	Attributes struct {
		Debug         bool `json:"debug"`
		SEPTVEDisable bool `json:"septve_disable"`
	} `json:"td_attributes"`
	EventLog   bool     `json:"event_log"`
	TCBStatus  string   `json:"tcb_status"`
	TCBDate    string   `json:"tcb_date"`
	Advisories []string `json:"advisory_ids"`
	ReportData string   `json:"report_data"`
	InitData   string   `json:"init_data"`
}

func tdxClaims(c *tdxCase, level tcbLevel) ([]byte, error) {
	r := c.quote.Body
	var s tdxClaimSet
	s.Quote.Body = map[string]string{
		"tcb_svn": fmt.Sprintf("%x", r.TCBSVN()), "mr_seam": fmt.Sprintf("%x", r.MRSeam()), "mrsigner_seam": fmt.Sprintf("%x", r.MRSignerSeam()),
		"mr_td": fmt.Sprintf("%x", r.MRTD()), "mr_config_id": fmt.Sprintf("%x", r.MRConfigID()),
		"mr_owner": fmt.Sprintf("%x", r.MROwner()), "mr_owner_config": fmt.Sprintf("%x", r.MROwnerConfig()),
		"report_data": fmt.Sprintf("%x", r.ReportData()),
	}
	for i := range 4 {
		s.Quote.Body[fmt.Sprintf("rtmr_%d", i)] = fmt.Sprintf("%x", r.RTMR(i))
	}
	s.Attributes.Debug, s.Attributes.SEPTVEDisable = r.Attributes().Debug(), r.Attributes().SEPTVEDisable()
	s.EventLog = c.ev.EventLog != nil
	s.TCBStatus, s.TCBDate, s.Advisories = level.Status, level.Date.UTC().Format(time.RFC3339), level.Advisories
	s.ReportData, s.InitData = fmt.Sprintf("%x", r.ReportData()), fmt.Sprintf("%x", c.in.InitData.Sum)
	return json.Marshal(s, json.Deterministic(true))
}
