// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrDenied is what every *Denial wraps.
var ErrDenied = errors.New("image denied by policy")

// Denial is the error of Check when the policy refuses an image. Its text names the image, the policy entry and the
// reason; Admit is for the owner of the policy and not part of it. Nothing in it is secret, but Found quotes what the
// registry sent.
type Denial struct {
	Reference   string    // as requested, in its full form
	Digests     []v1.Hash // of the image
	Scope       string    // the entry that matched: `default` or `transports.docker["SCOPE"]`
	Requirement string    // the refusing requirement: its type and index, `sigstoreSigned[0]`
	Wanted      string
	Found       string
	Admit       string // what the owner can do, with the lines of policy.json; several lines
}

func (d *Denial) Error() string {
	return fmt.Sprintf("%v: %s: %s %s wants %s, found %s", ErrDenied, d.Reference, d.Scope, d.Requirement, d.Wanted, d.Found)
}

// Unwrap returns ErrDenied.
func (d *Denial) Unwrap() error { return ErrDenied }

// admitDigest tells how to admit exactly this image without a signature.
func admitDigest(ref reference, digest v1.Hash) string {
	scope := ref.repo + "@" + digest.String()
	by := ""
	if ref.digest == "" {
		by = fmt.Sprintf("request it as %s and ", scope)
	}
	return fmt.Sprintf("to admit exactly this image, %sadd to policy.json under transports.docker:\n  %s", by,
		line(scope, plainJSON{typeAccept}))
}

// admitSignature tells which signature would do. claimed says what one was refused for that an accepted signer made: it
// names the repository and no tag, which is all that cosign 2 writes, or nothing, as cosign 3 does.
func admitSignature(r *requirement, ref reference, digest v1.Hash, claimed claim) string {
	advice := fmt.Sprintf("sign %s@%s as %s %s; or, %s", ref.repo, digest, r.identity.describe(ref), r.signer(), admitDigest(ref, digest))
	switch claimed {
	case claimRepository:
		advice = `the signature names the repository without a tag, as cosign writes it: add to this requirement
  "signedIdentity": {"type":"` + matchRepository + `"}
or ` + advice
	case claimNothing:
		advice = `the signature names no repository, as cosign 3 writes it; to let the signer's every image stand for every name in
this scope, add to this requirement
  "signedIdentity": {"type":"` + matchDigestOnly + `"}
or ` + advice
	}
	return advice
}

// signer says in words who may sign.
func (r *requirement) signer() string {
	var ids []string
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	ids = append(ids, fingerprints(r.ring)...)
	for _, f := range r.pending {
		if f.role == roleSigner {
			ids = append(ids, f.path)
		}
	}
	by := "with the key " + strings.Join(ids, " or ")
	if r.authority != nil {
		by = "with " + r.authority.describe()
	}
	if len(r.rekor) > 0 {
		by += " and have it logged by Rekor"
	}
	return by
}

// line is a member of a JSON object: a scope with one requirement.
func line(scope string, requirement plainJSON) string {
	key, err := json.Marshal(scope)
	if err != nil {
		panic("trust: a string that is no JSON: " + err.Error())
	}
	value, err := json.Marshal([]plainJSON{requirement})
	if err != nil {
		panic("trust: a requirement that is no JSON: " + err.Error())
	}
	return string(key) + ": " + string(value)
}
