// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
)

// snpClaimSet are the claims that Trustee's policies know an SNP guest by.
type snpClaimSet struct {
	PolicyABIMajor        uint8  `json:"policy_abi_major"`
	PolicyABIMinor        uint8  `json:"policy_abi_minor"`
	PolicySMTAllowed      bool   `json:"policy_smt_allowed"`
	PolicyMigrateMA       bool   `json:"policy_migrate_ma"`
	PolicyDebugAllowed    bool   `json:"policy_debug_allowed"`
	PolicySingleSocket    bool   `json:"policy_single_socket"`
	ReportedTCBBootloader uint8  `json:"reported_tcb_bootloader"`
	ReportedTCBTEE        uint8  `json:"reported_tcb_tee"`
	ReportedTCBSNP        uint8  `json:"reported_tcb_snp"`
	ReportedTCBMicrocode  uint8  `json:"reported_tcb_microcode"`
	PlatformTSMEEnabled   bool   `json:"platform_tsme_enabled"`
	PlatformSMTEnabled    bool   `json:"platform_smt_enabled"`
	Measurement           string `json:"measurement"`
	ReportData            string `json:"report_data"`
	InitData              string `json:"init_data"`
	ChipID                string `json:"chip_id"`
}

// Bits of PLATFORM_INFO, AMD 56860.
const (
	platformSMT  = 1 << 0
	platformTSME = 1 << 1
)

func snpClaims(r *evidence.SNPReport, initData Digest) ([]byte, error) {
	policy, tcb := r.Policy(), r.ReportedTCB()
	return json.Marshal(snpClaimSet{
		PolicyABIMajor:        policy.ABIMajor(),
		PolicyABIMinor:        policy.ABIMinor(),
		PolicySMTAllowed:      policy.SMT(),
		PolicyMigrateMA:       policy.MigrateMA(),
		PolicyDebugAllowed:    policy.Debug(),
		PolicySingleSocket:    policy.SingleSocket(),
		ReportedTCBBootloader: tcb.Bootloader,
		ReportedTCBTEE:        tcb.TEE,
		ReportedTCBSNP:        tcb.SNP,
		ReportedTCBMicrocode:  tcb.Microcode,
		PlatformTSMEEnabled:   r.PlatformInfo()&platformTSME != 0,
		PlatformSMTEnabled:    r.PlatformInfo()&platformSMT != 0,
		Measurement:           fmt.Sprintf("%x", r.Measurement()),
		ReportData:            fmt.Sprintf("%x", r.ReportData()),
		InitData:              fmt.Sprintf("%x", initData.Sum),
		ChipID:                fmt.Sprintf("%x", r.ChipID()),
	})
}
