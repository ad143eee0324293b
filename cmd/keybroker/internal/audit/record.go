// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// Event is what a record is about.
type Event string

const (
	Start    Event = "start"    // the keybroker started; Note says how
	Owner    Event = "owner"    // the owner API was called; Note says what for
	Auth     Event = "auth"     // a guest was refused a session
	Attest   Event = "attest"   // evidence was judged
	Replay   Event = "replay"   // a nonce came a second time
	Release  Event = "release"  // a secret was asked for
	Count    Event = "count"    // a volume's counter was read or raised; Note says what it is
	Report   Event = "report"   // a guest said something of itself, see KeepReport
	Incident Event = "incident" // a guest told what was refused or failed in it, see KeepIncidents
	Overload Event = "overload" // requests were turned away unread; Note says how many
)

// maxText bounds each text of a record, most of which a guest or its host chose.
const maxText = 512

// Record is one line.
type Record struct {
	Time time.Time `json:"time"`
	// ID ties together what belongs to one handshake; the guest is told it.
	ID      string `json:"id,omitempty"`
	Event   Event  `json:"event"`
	Allowed bool   `json:"allowed"`

	Workload    string       `json:"workload,omitempty"`
	TEE         evidence.TEE `json:"tee,omitempty"`
	Measurement string       `json:"measurement,omitempty"`
	InitData    string       `json:"initdata,omitempty"`
	TestRoot    bool         `json:"test_root,omitempty"`
	// Devices are those beside the TEE, AttestationKey that of the guest's TPM, as in Facts.
	// The key of a denied guest may be anybody's.
	Devices        string `json:"devices,omitempty"`
	AttestationKey string `json:"attestation_key,omitempty"`
	Resource       string `json:"resource,omitempty"`

	// Rule is the first rule that denied, with what it wanted and found; Also names the
	// others that denied.
	Rule   string   `json:"rule,omitempty"`
	Wanted string   `json:"wanted,omitempty"`
	Found  string   `json:"found,omitempty"`
	Also   []string `json:"also,omitempty"`

	Note   string `json:"note,omitempty"`
	Remote string `json:"remote,omitempty"`
}

// Guest fills in what was found out about a guest.
func (r *Record) Guest(f verifier.Facts) {
	r.TEE, r.Measurement, r.InitData, r.TestRoot = f.TEE, f.Measurement, f.InitData, f.TestRoot
	r.Devices, r.AttestationKey = f.Devices, f.AttestationKey
}

// Deny fills in why; failed is not empty.
func (r *Record) Deny(failed []verifier.Finding) {
	first := failed[0]
	r.Allowed, r.Rule, r.Wanted, r.Found = false, first.Rule, first.Wanted, first.Found
	for _, f := range failed[1:] {
		r.Also = append(r.Also, f.Rule)
	}
}

// cut shortens every text that others chose.
func (r *Record) cut() {
	for _, text := range []*string{&r.Workload, &r.Measurement, &r.InitData, &r.Resource, &r.Wanted, &r.Found, &r.Note, &r.Remote} {
		*text = shorten(*text)
	}
}

func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
