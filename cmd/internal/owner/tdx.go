// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// TDXReference are the reference values for quotes of Intel TDX.
type TDXReference struct {
	// Measurements are the accepted values of MRTD: 48 bytes, lower-case hex.
	Measurements []string `toml:"measurements" json:"measurements"`

	// Debug says that these are the values of debug images, as in SNPReference.
	Debug bool `toml:"debug,omitempty" json:"debug,omitempty"`

	// RTMR0 to RTMR3 are the accepted values of the run-time registers: 48 bytes,
	// lower-case hex. An empty list leaves its register unchecked.
	RTMR0 []string `toml:"rtmr0,omitempty" json:"rtmr0,omitempty"`
	RTMR1 []string `toml:"rtmr1,omitempty" json:"rtmr1,omitempty"`
	RTMR2 []string `toml:"rtmr2,omitempty" json:"rtmr2,omitempty"`
	RTMR3 []string `toml:"rtmr3,omitempty" json:"rtmr3,omitempty"`

	// AcceptTCB are the statuses taken besides UpToDate, in Intel's spelling. Revoked
	// is never taken.
	AcceptTCB []string `toml:"accept_tcb,omitempty" json:"accept_tcb,omitempty"`

	// MinimumTCBDate is the oldest accepted date of the TCB level, YYYY-MM-DD.
	MinimumTCBDate string `toml:"minimum_tcb_date,omitempty" json:"minimum_tcb_date,omitempty"`

	// AcceptMissingCollateral takes evidence for which the keybroker has no current TCB
	// table, enclave identity or revocation list. What any list or a current table
	// does say against a platform is always heeded, and whoever quotes must be Intel's
	// enclave.
	AcceptMissingCollateral bool `toml:"accept_missing_collateral,omitempty" json:"accept_missing_collateral,omitempty"`
}

// TCBUnknown is the status of a platform without current collateral.
const TCBUnknown = "Unknown"

// tcbUpToDate is the one status that needs nobody's consent.
const tcbUpToDate = "UpToDate"

// tcbStatuses are Intel's, the best first.
func tcbStatuses() []string {
	return []string{tcbUpToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
		"OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}
}

// TCBRank orders statuses, the best first. One that is not known is the worst.
func TCBRank(status string) int {
	if i := slices.Index(tcbStatuses(), status); i >= 0 {
		return i
	}
	return len(tcbStatuses())
}

// Registers returns the lists for RTMR0 to RTMR3.
func (t *TDXReference) Registers() [4][]string {
	return [4][]string{t.RTMR0, t.RTMR1, t.RTMR2, t.RTMR3}
}

// Statuses returns the statuses that t takes.
func (t *TDXReference) Statuses() []string {
	list := append([]string{tcbUpToDate}, t.AcceptTCB...)
	if t.AcceptMissingCollateral {
		list = append(list, TCBUnknown)
	}
	return list
}

func (r *Registration) validateTDX() error {
	if !slices.ContainsFunc(r.TEEs, OnTDX) {
		if r.TDX != nil {
			return errors.New(`has tdx reference values but tees lacks "tdx" and "az-tdx-vtpm"`)
		}
		return nil
	}
	if r.TDX == nil || len(r.TDX.Measurements) == 0 {
		return errors.New("no tdx measurement: any guest on any firmware would match")
	}
	lists := r.TDX.Registers()
	for _, list := range append(lists[:], r.TDX.Measurements) {
		if len(list) > MaxAlternatives {
			return fmt.Errorf("%d tdx measurements, at most %d allowed", len(list), MaxAlternatives)
		}
		for _, m := range list {
			if err := checkHex(m, measurementSize); err != nil {
				return fmt.Errorf("tdx measurement %q: %w", m, err)
			}
		}
	}
	for _, status := range r.TDX.AcceptTCB {
		if status == "Revoked" || !slices.Contains(tcbStatuses(), status) {
			return fmt.Errorf("tdx accept_tcb: %q cannot be accepted", status)
		}
	}
	if date := r.TDX.MinimumTCBDate; date != "" {
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			return fmt.Errorf("tdx minimum_tcb_date %q: want YYYY-MM-DD", date)
		}
	}
	return nil
}
