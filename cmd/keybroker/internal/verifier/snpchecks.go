// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// sigECDSAP384 is SIGNATURE_ALGO for ECDSA P-384 with SHA-384, the only one defined.
const sigECDSAP384 = 1

// SIGNING_KEY, bits 2 to 4 of KEY_INFO.
const (
	keyInfoShift = 2
	keyInfoMask  = 7
)

func checkFormat(c *snpCase) (wanted, found string, ok bool) {
	ev, err := evidence.ParseSNPEvidence(c.in.Evidence)
	if err == nil {
		c.ev, c.report = ev, &ev.Report
	}
	return "SNP evidence of a known processor", describeError(err), err == nil
}

// checkVersion leaves version 2 out: it does not name the processor, so nothing in
// what is signed says which product line's root must have certified the key.
func checkVersion(c *snpCase) (wanted, found string, ok bool) {
	v := c.report.Version()
	return "version 3, 4 or 5", fmt.Sprintf("version %d", v), v >= 3 && v <= 5
}

func checkAlgorithm(c *snpCase) (wanted, found string, ok bool) {
	a := c.report.SignatureAlgorithm()
	return fmt.Sprintf("%d, ECDSA P-384 with SHA-384", sigECDSAP384), fmt.Sprint(a), a == sigECDSAP384
}

// signingKind is what the report says about the key that signed it.
func (c *snpCase) signingKind() (kind keyKind, ok bool) {
	switch c.report.KeyInfo() >> keyInfoShift & keyInfoMask {
	case 0:
		return vcek, true
	case 1:
		return vlek, true
	}
	return "", false // 7: not signed; the others are reserved
}

// checkVEK finds the certificate for the key that the report names: in the evidence,
// else, for a VCEK, on disk.
func checkVEK(c *snpCase) (wanted, found string, ok bool) {
	kind, ok := c.signingKind()
	if !ok {
		return "a report signed by a VCEK or VLEK", fmt.Sprintf("key info %#x", c.report.KeyInfo()), false
	}
	wanted = fmt.Sprintf("a %s certificate with the evidence or in the collateral directory", kind)
	der := c.ev.Find(evidence.SNPCertType(kind))
	if der == nil && kind == vcek {
		var err error
		if der, err = c.v.collateral.vcek(c.report); err != nil {
			return wanted, err.Error(), false
		}
		if der == nil && c.v.kds != nil {
			if rule := c.hopeless(); rule != "" {
				return wanted, "none, and AMD is not asked: whoever signed it, the report is denied by the rule " + rule, false
			}
			if der, err = c.v.fetchVCEK(c.report); err != nil {
				return wanted, err.Error(), false
			}
		}
	}
	if der == nil {
		return wanted, "none", false
	}
	vek, err := parseVEK(der, c.report.Product())
	if err != nil {
		return wanted, err.Error(), false
	}
	c.vek = vek
	return wanted, vek.cert.Subject.CommonName, true
}

// hopeless names a rule that denies the report whoever signed it, "" for none. AMD answers seldom: who makes up reports of
// chips that nobody has would use up the questions of guests on new ones.
func (c *snpCase) hopeless() string {
	for _, row := range []check[*snpCase]{
		{name: "vmpl", judge: checkVMPL}, {name: "debug", judge: checkDebug}, {name: "migration", judge: checkMigration},
		{name: "report-data", judge: checkReportData}, {name: "host-data", judge: checkHostData},
		{name: "measurement", judge: func(c *snpCase) (wanted, found string, ok bool) {
			facts := Facts{TEE: c.in.TEE}
			c.fill(&facts)
			return checkMeasurement(claim{facts: facts, registration: c.in.Registration})
		}},
	} {
		if _, _, ok := row.judge(c); !ok {
			return row.name
		}
	}
	return ""
}

// checkSigningKey compares the kind that is signed with the kind of certificate, which
// the host labelled.
func checkSigningKey(c *snpCase) (wanted, found string, ok bool) {
	kind, _ := c.signingKind()
	return string(kind), string(c.vek.kind), kind == c.vek.kind
}

func checkChain(c *snpCase) (wanted, found string, ok bool) {
	line := productLine(c.report.Product())
	wanted = fmt.Sprintf("a chain to AMD's root for %s", line)
	if c.v.chains.test != nil {
		wanted += " or to the test root"
	}
	chain, err := c.v.chains.verify(c.vek, line, c.ev.Certs)
	if err != nil && c.vek.kind == vlek {
		if kept := c.v.collateral.asvks(line); kept != nil {
			chain, err = c.v.chains.verify(c.vek, line, append(kept, c.ev.Certs...))
		}
	}
	if err != nil {
		return wanted, err.Error(), false
	}
	c.chain = chain
	return wanted, chain.root.ark.Subject.CommonName, true
}

func checkValidity(c *snpCase) (wanted, found string, ok bool) {
	wanted = "certificates valid at " + c.in.Now.UTC().Format(time.RFC3339)
	for _, cert := range []*x509.Certificate{c.vek.cert, c.chain.ask, c.chain.root.ark} {
		if c.in.Now.Before(cert.NotBefore) || c.in.Now.After(cert.NotAfter) {
			return wanted, fmt.Sprintf("%q valid from %s to %s", cert.Subject.CommonName,
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339)), false
		}
	}
	return wanted, "valid", true
}

// checkRevocation wants a fresh list. AMD's list is the root's, about intermediates;
// an entry for the key itself counts too. Those of VCEKs and of VLEKs have lists of their
// own. An entry counts in either, but a current list of the one does not stand in for the
// other's, unless the directory is the owner's alone and has no list by the other's name.
func checkRevocation(c *snpCase) (wanted, found string, ok bool) {
	tolerant := c.in.Registration.SNP != nil && c.in.Registration.SNP.AcceptMissingCRL
	wanted = "a current revocation list of the root that does not list the chain"
	if tolerant {
		wanted = "no revocation list that lists the chain"
	}
	list, all := c.v.collateral.revocationsOf(c.chain.root.ark, c.vek.kind)
	if found := revoked(all, c.chain.ask, c.vek.cert); found != "" {
		return wanted, found, false
	}
	if list == nil && c.vek.kind == vlek && c.v.kds == nil {
		list, _ = c.v.collateral.revocationsOf(c.chain.root.ark, vcek)
	}
	if list == nil {
		return wanted, fmt.Sprintf("no revocation list for %ss", c.vek.kind), tolerant
	}
	// A list without a next update has the zero time there, so it is never current.
	if c.in.Now.After(list.NextUpdate) || c.in.Now.Before(list.ThisUpdate) {
		return wanted, fmt.Sprintf("a list valid from %s to %s", list.ThisUpdate.Format(time.RFC3339), list.NextUpdate.Format(time.RFC3339)), tolerant
	}
	return wanted, "not listed", true
}

// revoked says which of certs one of the lists revokes, "" for none.
func revoked(lists []*crl, certs ...*x509.Certificate) string {
	for _, l := range lists {
		list := l.list
		for _, entry := range list.RevokedCertificateEntries {
			for _, cert := range certs {
				if revokes(list, entry, cert) {
					return fmt.Sprintf("%q revoked at %s", cert.Subject.CommonName, entry.RevocationTime.Format(time.RFC3339))
				}
			}
		}
	}
	return ""
}

// revokes compares serial numbers among certificates of the list's issuer. AMD gives
// VEKs the serial number 0, so the issuer must match too.
func revokes(list *x509.RevocationList, entry x509.RevocationListEntry, cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, list.RawIssuer) && entry.SerialNumber.Cmp(cert.SerialNumber) == 0
}

// checkSignature verifies bytes 0 to 0x29F, which hold everything that is judged.
func checkSignature(c *snpCase) (wanted, found string, ok bool) {
	wanted = "a signature by the certified key over bytes 0 to 0x29F"
	pub, isECDSA := c.vek.cert.PublicKey.(*ecdsa.PublicKey)
	if !isECDSA || pub.Curve != elliptic.P384() {
		return wanted, "the certified key is not on P-384", false
	}
	digest := sha512.Sum384(c.report.Signed())
	r, s := c.report.SignatureRS()
	if !ecdsa.Verify(pub, digest[:], fromLE(r), fromLE(s)) {
		return wanted, "another signature", false
	}
	return wanted, "verified", true
}

func fromLE(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// checkCertifiedTCB ties the levels in the report to the key: a chip derives another
// key for each level, so older firmware cannot claim newer levels.
func checkCertifiedTCB(c *snpCase) (wanted, found string, ok bool) {
	reported := tcbOf(c.report.ReportedTCB())
	return "reported " + describeTCB(reported), "certified " + describeTCB(c.vek.tcb), reported == c.vek.tcb
}

// checkCertifiedChip ties the report to the chip. A VLEK is no chip's: its report is
// from whichever chip the provider gave it to.
func checkCertifiedChip(c *snpCase) (wanted, found string, ok bool) {
	if c.vek.kind == vlek {
		return "nothing: a VLEK is not bound to a chip", "VLEK", true
	}
	chip := c.report.ChipID()
	if c.report.Product() == evidence.Turin {
		chip = chip[:8] // Turin's certificates carry 8 bytes
	}
	return fmt.Sprintf("%x", chip), fmt.Sprintf("%x", c.vek.hwid), bytes.Equal(chip, c.vek.hwid)
}

func checkVMPL(c *snpCase) (wanted, found string, ok bool) {
	return "0", fmt.Sprint(c.report.VMPL()), c.report.VMPL() == 0
}

func checkDebug(c *snpCase) (wanted, found string, ok bool) {
	return "debugging not allowed by the guest policy", fmt.Sprintf("policy %#x", uint64(c.report.Policy())), !c.report.Policy().Debug()
}

func checkMigration(c *snpCase) (wanted, found string, ok bool) {
	return "no migration agent allowed by the guest policy", fmt.Sprintf("policy %#x", uint64(c.report.Policy())), !c.report.Policy().MigrateMA()
}

func checkReportData(c *snpCase) (wanted, found string, ok bool) {
	want, got := c.in.ReportData.Bytes64(), c.report.ReportData()
	return fmt.Sprintf("%x", want), fmt.Sprintf("%x", got), !c.in.ReportData.IsZero() && bytes.Equal(want[:], got)
}

// checkHostData ties the initdata to the launch. A digest longer than the field is cut
// and a shorter one zero-padded, as every SNP host does it; nobody having set the field
// is never a match.
func checkHostData(c *snpCase) (wanted, found string, ok bool) {
	got := c.report.HostData()
	want := make([]byte, len(got))
	copy(want, c.in.InitData.Sum)
	found = fmt.Sprintf("%x", got)
	switch zero := make([]byte, len(got)); {
	case len(c.in.InitData.Sum) == 0:
		return "the digest of an initdata document", found, false
	case bytes.Equal(got, zero):
		return fmt.Sprintf("%x", want), "all zero: nobody set it at launch", false
	}
	return fmt.Sprintf("%x", want), found, bytes.Equal(want, got)
}

// checkFloor holds for AMD's firmware; behind a test root there is none.
func checkFloor(c *snpCase) (wanted, found string, ok bool) {
	lowest := lowestTCB(c.report)
	if c.chain.root.test {
		return "nothing: the root is a test root", describeTCB(lowest), true
	}
	floor, known := c.v.floors[productLine(c.report.Product())]
	return "at least " + describeTCB(floor), describeTCB(lowest), known && atLeast(lowest, floor)
}
