// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// tpmVector is claimed only when every row passed, among them that the owner pinned the
// key: without that nothing is known of the hardware.
var tpmVector = Vector{Hardware: 2, Executables: 3, Configuration: 2}

// tpmCase is one quote under judgement. The gate fills it in.
type tpmCase struct {
	in        Input
	ev        evidence.TPMEvidence
	key       *rsa.PublicKey
	quote     evidence.TPMQuote
	signature []byte
}

// tpmChecks are the rules on TPM evidence, as snpChecks. Whose key it is and what the
// registers hold is compared with the registration, at every release too.
func tpmChecks() []check[*tpmCase] {
	return []check[*tpmCase]{
		{name: "format", gate: true, judge: tpmFormat},
		{name: "signature", judge: tpmSignature},
		{name: "report-data", judge: tpmReportData},
		{name: "pcr-selection", judge: tpmSelection},
		{name: "pcr-digest", judge: tpmRegisterDigest},
		{name: "initdata-register", judge: tpmInitData},
		{name: "event-log", judge: tpmEventLog},
	}
}

func judgeTPM(in Input, checks []check[*tpmCase]) Verdict {
	c := &tpmCase{in: in}
	v := Verdict{Facts: Facts{TEE: evidence.TPM}}
	v.Findings, v.complete = run(checks, c)
	if !v.complete {
		return v
	}
	v.Facts.InitData = in.InitData.String()
	v.Facts.AttestationKey = evidence.KeyDigest(c.ev.AttestationKey)
	for i := range v.Facts.PCR {
		v.Facts.PCR[i] = fmt.Sprintf("%x", c.ev.Registers[i])
	}
	// The rows that follow in Recheck deny a key that is not the owner's; the vector must
	// not claim hardware for it even so.
	trusted := keyPinned(in.Registration, v.Facts.AttestationKey)
	if trusted && len(v.Failed()) == 0 {
		v.Vector = tpmVector
		var err error
		v.Claims, err = json.Marshal(tpmClaims(c), json.Deterministic(true))
		v.complete = err == nil
	}
	return v
}

// keyPinned reports whether the owner vouches for an attestation key.
func keyPinned(r owner.Registration, key string) bool {
	return r.TPM != nil && slices.Contains(r.TPM.KeyDigests(), key)
}

// tpmFormat refuses what is no quote: another magic, another type of attestation,
// another signature scheme, bank or kind of key.
func tpmFormat(c *tpmCase) (wanted, found string, ok bool) {
	err := c.parse()
	return "TPM evidence with a quote of the SHA-256 bank by an RSA key", describeError(err), err == nil
}

func (c *tpmCase) parse() (err error) {
	if c.ev, err = evidence.ParseTPMEvidence(c.in.Evidence); err != nil {
		return err
	}
	if c.key, err = c.ev.PublicKey(); err != nil {
		return err
	}
	if c.quote, err = evidence.ParseTPMQuote(c.ev.Message); err != nil {
		return err
	}
	c.signature, err = evidence.ParseTPMSignature(c.ev.Signature)
	return err
}

func tpmSignature(c *tpmCase) (wanted, found string, ok bool) {
	sum := sha256.Sum256(c.ev.Message)
	ok = rsa.VerifyPKCS1v15(c.key, crypto.SHA256, sum[:], c.signature) == nil
	return "the attestation key signed the quote", holds(ok), ok
}

func tpmReportData(c *tpmCase) (wanted, found string, ok bool) {
	want := c.in.ReportData.Bytes32()
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", c.quote.ExtraData), !c.in.ReportData.IsZero() && bytes.Equal(want[:], c.quote.ExtraData)
}

// tpmSelection wants the quote to cover every register that the evidence lists: others
// would be whatever the host wrote there.
func tpmSelection(c *tpmCase) (wanted, found string, ok bool) {
	return "registers ffffff", fmt.Sprintf("registers %x", c.quote.Selection), c.quote.WholeBank()
}

func tpmRegisterDigest(c *tpmCase) (wanted, found string, ok bool) {
	want := c.ev.Registers.Digest()
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", c.quote.RegisterDigest), bytes.Equal(want[:], c.quote.RegisterDigest)
}

// tpmInitData wants a register that was zero and was extended once, with the digest of
// the initdata that came along: the guest's own look at it proves nothing to us.
func tpmInitData(c *tpmCase) (wanted, found string, ok bool) {
	got := c.ev.Registers[evidence.TPMInitDataRegister]
	found = fmt.Sprintf("%x", got)
	if c.in.InitData.Algorithm != evidence.SHA256 || len(c.in.InitData.Sum) != sha256.Size {
		return "an initdata document with algorithm sha256", found, false
	}
	want := evidence.ExtendTPM([sha256.Size]byte{}, c.in.InitData.Sum)
	return fmt.Sprintf("%x", want), found, got == want
}

// tpmEventLog lets a missing log pass: the registers are signed without it, and the
// claim event_log says so.
func tpmEventLog(c *tpmCase) (wanted, found string, ok bool) {
	wanted = "no event log, or one that replays to the registers that it covers"
	if c.ev.EventLog == nil {
		return wanted, "no event log", true
	}
	replay, err := evidence.ReplayTPMLog(c.ev.EventLog)
	if err != nil {
		return wanted, err.Error(), false
	}
	for i, value := range replay.Registers {
		if replay.Covers(i) && value != c.ev.Registers[i] {
			return wanted, fmt.Sprintf("register %d replays to %x and is %x", i, value, c.ev.Registers[i]), false
		}
	}
	return wanted, "it replays", true
}

// checkAttestationKey compares the key with those that the owner pinned.
func checkAttestationKey(c claim) (wanted, found string, ok bool) {
	device := c.facts.has(evidence.TPM)
	if c.facts.TEE != evidence.TPM && !device {
		return "no attestation key of a plain TPM", "none", true
	}
	var list []string
	if c.registration.TPM != nil {
		list = c.registration.TPM.KeyDigests()
	}
	// Validate lets this pass only beside a TEE and with a policy of the workload's own.
	if device && c.registration.TPM != nil && len(list) == 0 {
		return "any key that the TEE's report binds: none is pinned", c.facts.AttestationKey, true
	}
	return oneOf(list), c.facts.AttestationKey, slices.Contains(list, c.facts.AttestationKey)
}

// checkPCRs compares the registers that the registration lists values for.
func checkPCRs(c claim) (wanted, found string, ok bool) {
	var pcrs owner.PCRs
	device := c.facts.has(evidence.TPM)
	switch {
	case device && c.registration.TPM != nil:
		pcrs = c.registration.TPM.PCRs
	case c.facts.TEE == evidence.TPM && c.registration.TPM != nil:
		pcrs = c.registration.TPM.PCRs
	case owner.OnAzure(c.facts.TEE) && c.registration.Azure != nil:
		pcrs = c.registration.Azure.PCRs
	case !device && c.facts.TEE != evidence.TPM && !owner.OnAzure(c.facts.TEE):
		return "no registers of a TPM", "none", true
	}
	if len(pcrs) == 0 && !device {
		return "reference values for the registers", "none", false
	}
	for i, value := range c.facts.PCR {
		if list := pcrs.Register(i); len(list) > 0 && !slices.Contains(list, value) {
			return fmt.Sprintf("PCR%d %s", i, oneOf(list)), value, false
		}
	}
	return "each register as listed, if listed", "as listed", true
}

// tpmClaims are the members that Trustee's policies know a TPM guest by, and event_log.
func tpmClaims(c *tpmCase) map[string]any {
	claims := map[string]any{
		"report_data": fmt.Sprintf("%x", c.quote.ExtraData),
		"init_data":   fmt.Sprintf("%x", c.ev.Registers[evidence.TPMInitDataRegister]),
		"ak_public":   base64.StdEncoding.EncodeToString(c.ev.AttestationKey),
		"event_log":   c.ev.EventLog != nil,
	}
	for i, value := range c.ev.Registers {
		claims[fmt.Sprintf("pcr%02d", i)] = fmt.Sprintf("%x", value)
	}
	return claims
}
