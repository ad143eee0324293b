// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// floors is the firmware below which no workload may accept a platform, whatever its
// registration says. On Milan and Genoa it is the first level that AMD-SB-3019 names
// as mitigated: before it, signatures of microcode could be forged, and with them
// reports. Milan's microcode has one numbering; Genoa's line has several processors
// with numberings of their own. For Turin this table has no level to name, which does
// not say that each is sound: tcb-minimum wants a minimum for it in the registration.
func floors() map[string]owner.TCB {
	return map[string]owner.TCB{
		owner.Milan: {SNP: 0x18, Microcode: 0xDB},
		owner.Genoa: {SNP: 0x17},
		owner.Turin: {},
	}
}

// productLine translates the product of a report.
func productLine(p evidence.SNPProduct) string {
	switch p {
	case evidence.Milan:
		return owner.Milan
	case evidence.Genoa:
		return owner.Genoa
	case evidence.Turin:
		return owner.Turin
	}
	return ""
}

// lowestTCB returns, component by component, the lowest of the levels in a report. What
// the key is certified for is only REPORTED_TCB; the guest may have been launched on
// older firmware (LAUNCH_TCB), older firmware may run (CURRENT_TCB), or the platform may
// still go back to it (COMMITTED_TCB).
func lowestTCB(r *evidence.SNPReport) owner.TCB {
	lowest := tcbOf(r.ReportedTCB())
	for _, t := range []evidence.SNPTCB{r.CommittedTCB(), r.CurrentTCB(), r.LaunchTCB()} {
		lowest.FMC = min(lowest.FMC, t.FMC)
		lowest.Bootloader = min(lowest.Bootloader, t.Bootloader)
		lowest.TEE = min(lowest.TEE, t.TEE)
		lowest.SNP = min(lowest.SNP, t.SNP)
		lowest.Microcode = min(lowest.Microcode, t.Microcode)
	}
	return lowest
}

func tcbOf(t evidence.SNPTCB) owner.TCB {
	return owner.TCB{FMC: t.FMC, Bootloader: t.Bootloader, TEE: t.TEE, SNP: t.SNP, Microcode: t.Microcode}
}

// atLeast compares component by component: levels have no order as a whole.
func atLeast(t, minimum owner.TCB) bool {
	return t.FMC >= minimum.FMC && t.Bootloader >= minimum.Bootloader && t.TEE >= minimum.TEE &&
		t.SNP >= minimum.SNP && t.Microcode >= minimum.Microcode
}

func describeTCB(t owner.TCB) string {
	return fmt.Sprintf("fmc %d bootloader %d tee %d snp %d microcode %d", t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}
