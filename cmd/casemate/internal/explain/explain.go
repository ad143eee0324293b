// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"time"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
)

// Outcomes of a handshake.
const (
	Accepted = "accepted" // a token was given
	Refused  = "refused"  // the relying party said no
	Failed   = "failed"   // it did not come to a verdict
)

// Explanation is a handshake in words.
type Explanation struct {
	KBS    string    `json:"kbs"`
	Began  time.Time `json:"began"`
	Micros int64     `json:"took_us"`
	// Claims are what was sent, none when nothing was.
	Claims  []Claim `json:"claims,omitempty"`
	Outcome string  `json:"outcome"`
	// Workload, Reference and TestRoot are the relying party's: the registration that
	// the guest was judged by, and the id of the handshake in its audit log.
	Workload  string `json:"workload,omitempty"`
	Reference string `json:"reference,omitempty"`
	TestRoot  bool   `json:"test_root,omitzero"`
	// Rule is the first rule that denied, Claim what it is about and Sent what was sent
	// for it. Wanted and Found are from the audit log, as are the further rules.
	Rule   string   `json:"rule,omitempty"`
	Claim  string   `json:"claim,omitempty"`
	Sent   string   `json:"sent,omitempty"`
	Wanted string   `json:"wanted,omitempty"`
	Found  string   `json:"found,omitempty"`
	Also   []string `json:"also,omitempty"`
	// Reason is why it failed, or the refusal in the relying party's words.
	Reason string `json:"reason,omitempty"`

	audited bool // an audit log was given
}

// New explains t. audit is what keybroker log --json printed, nil for none.
func New(t kbs.Transcript, audit []byte) (*Explanation, error) {
	x := &Explanation{KBS: t.KBS, Began: t.Began, Micros: t.Micros, Reason: t.Error, audited: audit != nil}
	if t.Sent != nil {
		var err error
		if x.Claims, err = sent(t); err != nil {
			return nil, err
		}
	}
	switch {
	case t.Error == "":
		x.Outcome = Accepted
		x.accepted(t)
		return x, nil
	case t.Status != 401 && t.Status != 403:
		x.Outcome = Failed
		return x, nil
	}
	x.Outcome = Refused
	x.Rule, x.Reference = denied(t.Detail)
	if audit != nil && x.Reference != "" {
		v, err := find(audit, x.Reference)
		if err != nil {
			return nil, err
		}
		if v != nil {
			x.Workload, x.Rule, x.Wanted, x.Found, x.Also = v.Workload, v.Rule, v.Wanted, v.Found, v.Also
		}
	}
	x.Claim = claimOf(x.Rule)
	for _, c := range x.Claims {
		// What is registered of a TPM may be said by one beside the TEE.
		if c.Name == x.Claim || x.Sent == "" && c.Name == ofDevice(evidence.TPM, x.Claim) {
			x.Sent = c.Value
		}
	}
	return x, nil
}

// accepted reads the token's claims, as keybroker writes them; other relying parties'
// tokens may have none of these.
func (x *Explanation) accepted(t kbs.Transcript) {
	var claims struct {
		ID       string `json:"jti"`
		Casemate struct {
			Workload string `json:"workload"`
			Facts    struct {
				TestRoot bool `json:"test_root"`
			} `json:"facts"`
		} `json:"casemate"`
	}
	if json.Unmarshal(t.Claims, &claims) == nil {
		x.Reference, x.Workload, x.TestRoot = claims.ID, claims.Casemate.Workload, claims.Casemate.Facts.TestRoot
	}
}
