// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

func tdxFormat(c *tdxCase) (wanted, found string, ok bool) {
	ev, err := evidence.ParseTDXEvidence(c.in.Evidence)
	if err == nil {
		c.ev = ev
		c.quote, err = evidence.ParseTDXQuote(ev.Quote)
	}
	return "TDX evidence with a quote of version 4 or 5", describeError(err), err == nil
}

func tdxChain(c *tdxCase) (wanted, found string, ok bool) {
	wanted = "a PCK chain to Intel's root"
	if c.v.test != nil {
		wanted += " or to the test root"
	}
	p, err := parsePCK(c.quote.PCKChain, c.v.intel, c.v.test)
	if err != nil {
		return wanted, err.Error(), false
	}
	c.pck = p
	return wanted, p.root.Subject.CommonName, true
}

func tdxValidity(c *tdxCase) (wanted, found string, ok bool) {
	wanted = "certificates valid at " + c.in.Now.UTC().Format(time.RFC3339)
	for _, cert := range []*x509.Certificate{c.pck.leaf, c.pck.ca, c.pck.root} {
		if c.in.Now.Before(cert.NotBefore) || c.in.Now.After(cert.NotAfter) {
			return wanted, fmt.Sprintf("%q valid from %s to %s", cert.Subject.CommonName,
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339)), false
		}
	}
	return wanted, "valid", true
}

// tdxRevocation wants the root's list, about the CA, and the CA's, about PCKs.
func tdxRevocation(c *tdxCase) (wanted, found string, ok bool) {
	wanted, found, ok = "current revocation lists of root and CA that do not list the chain", "not listed", true
	for _, step := range [][2]*x509.Certificate{{c.pck.root, c.pck.ca}, {c.pck.ca, c.pck.leaf}} {
		list := c.v.collateral.revocations(step[0])
		if list == nil {
			found, ok = fmt.Sprintf("no list of %q", step[0].Subject.CommonName), ok && c.tolerant()
			continue
		}
		for _, entry := range list.RevokedCertificateEntries {
			if revokes(list, entry, step[1]) {
				return wanted, fmt.Sprintf("%q revoked at %s", step[1].Subject.CommonName, entry.RevocationTime.Format(time.RFC3339)), false
			}
		}
		if c.in.Now.After(list.NextUpdate) || c.in.Now.Before(list.ThisUpdate) {
			found = fmt.Sprintf("a list valid from %s to %s", list.ThisUpdate.Format(time.RFC3339), list.NextUpdate.Format(time.RFC3339))
			ok = ok && c.tolerant()
		}
	}
	return wanted, found, ok
}

func holds(ok bool) string {
	if ok {
		return "it does"
	}
	return "it does not"
}

func tdxQESignature(c *tdxCase) (wanted, found string, ok bool) {
	ok = verifyP256(c.pck.leaf.PublicKey, c.quote.QEReport.Raw(), c.quote.QESignature)
	return "the PCK signed the quoting enclave's report", holds(ok), ok
}

func tdxAttestationKey(c *tdxCase) (wanted, found string, ok bool) {
	sum := sha256.Sum256(bytes.Join([][]byte{c.quote.AttestationKey, c.quote.QEAuthData}, nil))
	want := append(sum[:], make([]byte, 32)...)
	got := c.quote.QEReport.ReportData()
	return fmt.Sprintf("report data %x of the quoting enclave", want), fmt.Sprintf("%x", got), bytes.Equal(want, got)
}

func tdxSignature(c *tdxCase) (wanted, found string, ok bool) {
	ok = verifyP256(p256(c.quote.AttestationKey), c.quote.Signed, c.quote.Signature)
	return "the attestation key signed the quote", holds(ok), ok
}

// tdxTCBInfo finds the levels of platform and module. A revoked one is refused even
// when the registration does without collateral.
func tdxTCBInfo(c *tdxCase) (wanted, found string, ok bool) {
	wanted = fmt.Sprintf("a current table of Intel's for FMSPC %x, with a level that is not revoked", c.pck.fmspc)
	var info tcbInfo
	if err := c.table(fmt.Sprintf(tdxTCBInfoName, c.pck.fmspc), "tcbInfo", &info); err != nil {
		return wanted, err.Error(), c.tolerant()
	}
	if info.ID != "TDX" || info.Version != 3 || !hexEqual(info.FMSPC, c.pck.fmspc) || !hexEqual(info.PCEID, c.pck.pceID) {
		return wanted, fmt.Sprintf("a table %q version %d for FMSPC %q PCEID %q", info.ID, info.Version, info.FMSPC, info.PCEID), false
	}
	level, err := info.level(c.pck, c.quote.Body.TCBSVN())
	if err != nil {
		return wanted, err.Error(), false
	}
	levels := []tcbLevel{level}
	module, has, err := info.module(c.quote.Body)
	if err != nil {
		return wanted, err.Error(), false
	}
	if has {
		levels = append(levels, module)
	}
	c.levels = append(c.levels, levels...)
	return wanted, c.level().Status, !anyRevoked(levels)
}

func tdxEnclave(c *tdxCase) (wanted, found string, ok bool) {
	wanted = "Intel's quoting enclave and a current table for it, with a level that is not revoked"
	if err := ofIntel(c.quote.QEReport); err != nil {
		return wanted, err.Error(), false
	}
	var q qeIdentity
	if err := c.table(tdxQEIdentity, "enclaveIdentity", &q); err != nil {
		c.levels = nil // half of the tables make no status
		return wanted, err.Error(), c.tolerant()
	}
	if q.ID != "TD_QE" || q.Version != 2 {
		return wanted, fmt.Sprintf("a table %q version %d", q.ID, q.Version), false
	}
	if err := q.check(c.quote.QEReport); err != nil {
		return wanted, err.Error(), false
	}
	level, err := isvLevel(q.Levels, int(c.quote.QEReport.ISVSVN()))
	if err != nil {
		return wanted, err.Error(), false
	}
	if len(c.levels) > 0 {
		c.levels = append(c.levels, level)
	}
	return wanted, level.Status, !anyRevoked([]tcbLevel{level})
}

func anyRevoked(levels []tcbLevel) bool {
	for _, l := range levels {
		if l.Status == "Revoked" {
			return true
		}
	}
	return false
}

func tdxDebug(c *tdxCase) (wanted, found string, ok bool) {
	a := c.quote.Body.Attributes()
	return "no attribute of the group TUD", fmt.Sprintf("attributes %#x", uint64(a)), a.Untrusted() == 0
}

// tdxMigration refuses a bound service TD as well: that is what migrates a guest.
func tdxMigration(c *tdxCase) (wanted, found string, ok bool) {
	a, service := c.quote.Body.Attributes(), c.quote.Body.MRServiceTD()
	ok = !a.Migratable() && len(bytes.Trim(service, "\x00")) == 0
	return "not migratable, no service TD", fmt.Sprintf("attributes %#x, service TDs %x", uint64(a), service), ok
}

func tdxSEPTVE(c *tdxCase) (wanted, found string, ok bool) {
	a := c.quote.Body.Attributes()
	return "SEPT_VE_DISABLE", fmt.Sprintf("attributes %#x", uint64(a)), a.SEPTVEDisable()
}

func tdxModuleSigner(c *tdxCase) (wanted, found string, ok bool) {
	signer, attributes := c.quote.Body.MRSignerSeam(), c.quote.Body.SeamAttributes()
	ok = len(bytes.Trim(signer, "\x00")) == 0 && attributes == 0
	return "a production module of Intel's: signer and attributes zero", fmt.Sprintf("signer %x, attributes %#x", signer, attributes), ok
}

func tdxReportData(c *tdxCase) (wanted, found string, ok bool) {
	want, got := c.in.ReportData.Bytes64(), c.quote.Body.ReportData()
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", got), !c.in.ReportData.IsZero() && bytes.Equal(want[:], got)
}

// tdxConfigID ties the initdata to the launch as checkHostData does.
func tdxConfigID(c *tdxCase) (wanted, found string, ok bool) {
	got := c.quote.Body.MRConfigID()
	want := make([]byte, len(got))
	copy(want, c.in.InitData.Sum)
	if len(c.in.InitData.Sum) == 0 || len(bytes.Trim(got, "\x00")) == 0 {
		return "the digest of an initdata document", fmt.Sprintf("%x", got), false
	}
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", got), bytes.Equal(want, got)
}

// tdxEventLog lets a missing log pass: the registers are signed without it, and the
// claim event_log says so.
func tdxEventLog(c *tdxCase) (wanted, found string, ok bool) {
	wanted = "no event log, or one that replays to the registers"
	if c.ev.EventLog == nil {
		return wanted, "no event log", true
	}
	registers, err := evidence.ReplayEventLog(c.ev.EventLog)
	if err != nil {
		return wanted, err.Error(), false
	}
	for i := range registers {
		if !bytes.Equal(registers[i][:], c.quote.Body.RTMR(i)) {
			return wanted, fmt.Sprintf("RTMR%d replays to %x and is %x", i, registers[i], c.quote.Body.RTMR(i)), false
		}
	}
	return wanted, "it replays", true
}
