// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// claim is a guest that says it is the workload of a registration.
type claim struct {
	facts        Facts
	registration owner.Registration
}

// registrationChecks are judged when evidence comes and again at every release, with
// the registration as it is then: what its owner took back is refused from then on,
// however long tokens still live.
func registrationChecks() []check[claim] {
	return []check[claim]{
		{name: "tee-listed", judge: checkTEE},
		{name: "devices", judge: checkDevices},
		{name: "initdata-listed", judge: checkInitData},
		{name: "measurement", judge: checkMeasurement},
		{name: "rtmr", judge: checkRTMR},
		{name: "attestation-key-listed", judge: checkAttestationKey},
		{name: "pcrs", judge: checkPCRs},
		{name: "tcb-minimum", judge: checkMinimumTCB},
		{name: "test-root", judge: checkTestRoot},
		{name: "debug-guest", judge: checkDebugGuest},
	}
}

// Recheck compares facts with a registration.
func Recheck(facts Facts, r owner.Registration) []Finding {
	findings, _ := run(registrationChecks(), claim{facts: facts, registration: r})
	return findings
}

func checkTEE(c claim) (wanted, found string, ok bool) {
	names := make([]string, len(c.registration.TEEs))
	for i, tee := range c.registration.TEEs {
		names[i] = string(tee)
	}
	return oneOf(names), string(c.facts.TEE), c.registration.Takes(c.facts.TEE)
}

func checkInitData(c claim) (wanted, found string, ok bool) {
	if c.facts.InitData == "" {
		return oneOf(c.registration.InitData), "no initdata", false
	}
	return oneOf(c.registration.InitData), c.facts.InitData, slices.Contains(c.registration.InitData, c.facts.InitData)
}

func checkMeasurement(c claim) (wanted, found string, ok bool) {
	switch c.facts.TEE {
	case evidence.Sample:
		return "nothing: sample evidence has no measurement", "none", true
	case evidence.TPM:
		return "nothing: a TPM has registers, which the rule pcrs compares", "none", true
	}
	list := c.registration.Measurements(c.facts.TEE)
	return oneOf(list), c.facts.Measurement, slices.Contains(list, c.facts.Measurement)
}

// checkMinimumTCB wants a minimum for Turin: floors has none to fall back on. Behind a
// test root there is no floor to miss.
func checkMinimumTCB(c claim) (wanted, found string, ok bool) {
	if owner.OnTDX(c.facts.TEE) {
		return checkTDXStatus(c)
	}
	var minimums map[string]owner.TCB
	if owner.OnSNP(c.facts.TEE) && c.registration.SNP != nil {
		minimums = c.registration.SNP.MinimumTCB
	}
	if c.facts.Product == owner.Turin && !c.facts.TestRoot && minimums[owner.Turin] == (owner.TCB{}) {
		return "a minimum_tcb for turin in the registration: no floor is known for it", "none, for " + describeTCB(c.facts.TCB), false
	}
	if minimums == nil {
		return "no minimum of the workload's own", describeTCB(c.facts.TCB), true
	}
	minimum, listed := minimums[c.facts.Product]
	if !listed {
		return "a product line with a minimum", c.facts.Product, false
	}
	return "at least " + describeTCB(minimum), describeTCB(c.facts.TCB), atLeast(c.facts.TCB, minimum)
}

// checkRTMR compares the registers that the registration lists values for.
func checkRTMR(c claim) (wanted, found string, ok bool) {
	if !owner.OnTDX(c.facts.TEE) || c.registration.TDX == nil {
		return "no registers", "no registers", true
	}
	for i, list := range c.registration.TDX.Registers() {
		if len(list) > 0 && !slices.Contains(list, c.facts.RTMR[i]) {
			return fmt.Sprintf("RTMR%d %s", i, oneOf(list)), c.facts.RTMR[i], false
		}
	}
	return "each register as listed, if listed", "as listed", true
}

// checkTDXStatus compares Intel's word for the firmware with what the owner takes.
func checkTDXStatus(c claim) (wanted, found string, ok bool) {
	found = fmt.Sprintf("%s of %s", c.facts.TCBStatus, c.facts.TCBDate)
	if c.registration.TDX == nil {
		return "reference values for tdx", found, false
	}
	take, since := c.registration.TDX.Statuses(), c.registration.TDX.MinimumTCBDate
	wanted = oneOf(take)
	if since != "" {
		wanted += ", not before " + since
	}
	return wanted, found, slices.Contains(take, c.facts.TCBStatus) && c.facts.TCBDate >= since
}

func checkTestRoot(c claim) (wanted, found string, ok bool) {
	wanted, found = "a root of the TEE's vendor", "a root of the TEE's vendor"
	if c.registration.TestRoots {
		wanted = "a root of the TEE's vendor or a test root"
	}
	if c.facts.TestRoot {
		found = "a test root"
	}
	return wanted, found, !c.facts.TestRoot || c.registration.TestRoots
}

// checkDebugGuest is about the image; what the hardware may be debugged with is judged by
// the rules of its TEE.
func checkDebugGuest(c claim) (wanted, found string, ok bool) {
	wanted, found = "a guest without a shell", "a guest without a shell"
	if c.registration.Debug {
		wanted = "any guest: debug = true"
	}
	if c.facts.Debug {
		found = "a debug guest"
	}
	return wanted, found, !c.facts.Debug || c.registration.Debug
}

// oneOf keeps long lists readable; the registration itself can be shown.
func oneOf(list []string) string {
	const shown = 3
	switch {
	case len(list) == 0:
		return "nothing: the list is empty"
	case len(list) <= shown:
		return strings.Join(list, " or ")
	}
	return fmt.Sprintf("%s or %d more", strings.Join(list[:shown], " or "), len(list)-shown)
}
