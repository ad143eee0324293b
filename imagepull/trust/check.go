// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxSignatures bounds how many signatures of one digest are looked at. Each signing adds one.
const maxSignatures = 256

// maxReasons bounds how many signatures a refusal explains.
const maxReasons = 4

// Subject is the image that is asked about.
type Subject struct {
	// Reference is the name as the user requested it, never the mirror's from which the image comes.
	Reference name.Reference
	// Digests are proved: each is the digest of bytes that the caller has checked. First comes what the name stands
	// for, then, where that is an index, the manifest chosen from it. A signature may be over any of them.
	Digests []v1.Hash
}

// Signature is one cosign signature, as fetched: a sigstore bundle, or the other members. They are only read.
type Signature struct {
	// Bundle is the JSON of a sigstore bundle, as cosign 3 attaches it.
	Bundle []byte

	Payload         []byte // the simple signing JSON, verbatim
	Base64Signature string // annotation dev.cosignproject.cosign/signature
	Certificate     string // annotation dev.sigstore.cosign/certificate: PEM, of the signer; "" is none
	Chain           string // annotation dev.sigstore.cosign/chain: PEM, of its issuers; "" is none
	RekorBundle     string // annotation dev.sigstore.cosign/bundle: JSON, of the transparency log; "" is none
}

// SignatureSource finds the signatures that a registry holds for a digest.
type SignatureSource interface {
	// Signatures returns them in any order. None is an empty list and no error; an error says that it is not known
	// whether there are more than those beside it.
	Signatures(ctx context.Context, digest v1.Hash) ([]Signature, error)
	// Messages returns the signed OpenPGP messages of containers-signature(5), as Signatures does.
	Messages(ctx context.Context, digest v1.Hash) ([][]byte, error)
}

// Check returns nil when the policy admits s: every requirement of the one entry that matches best is met. It
// returns a *Denial when it refuses, and another error when it cannot tell because src failed. src is asked only
// when a requirement needs signatures.
func (p *Policy) Check(ctx context.Context, s Subject, src SignatureSource) error {
	if s.Reference == nil || len(s.Digests) == 0 {
		return errors.New("checking policy: no reference or no digest")
	}
	ref := fromName(s.Reference)
	scope, requirements := p.match(ref)
	c := &check{ref: ref, subject: s, src: src}
	for i := range requirements {
		r := &requirements[i]
		wanted, found, err := c.meets(ctx, r)
		if err != nil {
			return fmt.Errorf("checking %s: %w", ref, err)
		}
		if wanted == "" {
			continue
		}
		d := &Denial{
			Reference:   ref.String(),
			Digests:     s.Digests,
			Scope:       scope,
			Requirement: fmt.Sprintf("%s[%d]", r.kind, i),
			Wanted:      wanted,
			Found:       found,
			Admit:       admitDigest(ref, s.Digests[0]),
		}
		if r.kind == typeSigstore || r.kind == typeGPG {
			d.Admit = admitSignature(r, ref, s.Digests[0], c.claimed)
		}
		return d
	}
	return nil
}

// Requires names the entry that decides about a name and its requirements' types,
// in the policy's own words.
func (p *Policy) Requires(reference name.Reference) string {
	scope, requirements := p.match(fromName(reference))
	kinds := make([]string, len(requirements))
	for i := range requirements {
		kinds[i] = requirements[i].kind
	}
	return scope + " " + strings.Join(kinds, "+")
}

// match finds the entry for a name.
func (p *Policy) match(ref reference) (string, []requirement) {
	for _, scope := range scopesOf(ref) {
		if requirements, ok := p.scopes[scope]; ok {
			return nameOfScope(scope), requirements
		}
	}
	return nameOfDefault, p.fallback
}

// check is one call of Check.
type check struct {
	ref     reference
	subject Subject
	src     SignatureSource
	cosign  fetched[Signature]
	openpgp fetched[[]byte]
	claimed claim // of a signature by an accepted signer
}

// claim tells apart the signatures that a change of signedIdentity would admit.
type claim int

const (
	claimOther      claim = iota
	claimRepository       // the requested repository without a tag
	claimNothing          // no name
)

// fetched are the signatures of one kind over all digests, asked for once.
type fetched[S any] struct {
	asked bool
	list  []S
	err   error // what kept some of them from being seen
}

// meets checks one requirement: an empty wanted says that it is met.
func (c *check) meets(ctx context.Context, r *requirement) (wanted, found string, err error) {
	switch r.kind {
	case typeAccept:
		return "", "", nil
	case typeReject:
		return "no image here", "this one", nil
	case typeSigstore, typeGPG:
		return c.signed(ctx, r)
	}
	return "", "", fmt.Errorf("requirement of unknown type %q", r.kind)
}

// signed looks for one signature by one of the keys, over one of the digests, that claims an accepted name. Others
// beside it do not matter: anyone may push signatures.
func (c *check) signed(ctx context.Context, r *requirement) (wanted, found string, err error) {
	wanted = fmt.Sprintf("a signature for %s", r.identity.describe(c.ref))
	if len(r.pending) > 0 {
		return wanted, fmt.Sprintf("key %q, which was not loaded", r.pending[0].path), nil
	}
	if c.src == nil {
		return "", "", errors.New("fetching signatures: no source")
	}
	if r.kind == typeGPG {
		c.openpgp.fetch(ctx, c.subject.Digests, c.src.Messages)
		found, err = firstGood(ctx, c.openpgp, func(m []byte) string { return c.refusedMessage(r, m) })
	} else {
		c.cosign.fetch(ctx, c.subject.Digests, c.src.Signatures)
		found, err = firstGood(ctx, c.cosign, func(s Signature) string { return c.refused(r, s) })
	}
	if found == "" || err != nil {
		return "", "", err
	}
	return wanted, found, nil
}

// firstGood returns "" when one of the signatures is not refused, else why all of them are.
func firstGood[S any](ctx context.Context, signatures fetched[S], refused func(S) string) (found string, err error) {
	var reasons []string
	for i, s := range signatures.list {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		why := refused(s)
		if why == "" {
			return "", nil
		}
		if len(reasons) < maxReasons {
			reasons = append(reasons, fmt.Sprintf("signature %d: %s", i, why))
		}
	}
	if signatures.err != nil { // the one that is missing may be the good one
		return "", signatures.err
	}
	if len(signatures.list) == 0 {
		return "none", nil
	}
	if more := len(signatures.list) - len(reasons); more > 0 {
		reasons = append(reasons, fmt.Sprintf("%d more", more))
	}
	return strings.Join(reasons, "; "), nil
}

// fetch collects the signatures of all digests. That some could not be had matters only if the rest is not enough.
func (f *fetched[S]) fetch(ctx context.Context, digests []v1.Hash, source func(context.Context, v1.Hash) ([]S, error)) {
	if f.asked {
		return
	}
	f.asked = true
	for _, digest := range digests {
		list, err := source(ctx, digest)
		if err != nil {
			f.err = errors.Join(f.err, fmt.Errorf("fetching signatures of %s: %w", digest, err))
		}
		f.list = append(f.list, list[:min(len(list), maxSignatures)]...)
	}
	f.err = errors.Join(f.err, ctx.Err())
}

// refused says why a cosign signature is not the wanted one, or "". Nothing of the payload is believed before the
// signature over it is found good.
func (c *check) refused(r *requirement, s Signature) string {
	a, err := openSignature(s, r)
	if err != nil {
		return err.Error()
	}
	if err := r.authored(a); err != nil {
		return err.Error()
	}
	return c.claims(r, a.says)
}

// refusedMessage is refused for an OpenPGP message.
func (c *check) refusedMessage(r *requirement, message []byte) string {
	content, err := openSigned(r.ring, message)
	if err != nil {
		return err.Error()
	}
	return c.claims(r, func() (payload, error) { return parsePayload(content, gpgPayloadType) })
}

// claims says why what an accepted key signed is not about this image, or "".
func (c *check) claims(r *requirement, signed func() (payload, error)) string {
	p, err := signed()
	if err != nil {
		return fmt.Sprintf("by an accepted key, but malformed: %v", err)
	}
	if !c.has(p.digest) {
		return fmt.Sprintf("by an accepted key, for digest %s", p.digest)
	}
	if r.identity.accepts(c.ref, p.signed) {
		return ""
	}
	switch {
	case p.signed == (reference{}):
		c.claimed = claimNothing
		return "by an accepted key, for no name"
	case p.signed.repo == c.ref.repo && !p.signed.exact():
		c.claimed = claimRepository
	}
	return fmt.Sprintf("by an accepted key, for %s", p.signed)
}

// has says whether the digest is one of the subject's.
func (c *check) has(digest v1.Hash) bool {
	for _, d := range c.subject.Digests {
		if d == digest {
			return true
		}
	}
	return false
}
