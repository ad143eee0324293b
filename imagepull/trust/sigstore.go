// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// sigstoreJSON is sigstoreSigned. A member that is there and empty is told from one that is absent; null is there, too,
// where the value is kept as it stands.
type sigstoreJSON struct {
	Type           string         `json:"type"`
	KeyPath        *string        `json:"keyPath"`
	KeyPaths       *[]string      `json:"keyPaths"`
	KeyData        *string        `json:"keyData"`
	KeyDatas       *[]string      `json:"keyDatas"`
	Fulcio         jsontext.Value `json:"fulcio"`
	PKI            jsontext.Value `json:"pki"`
	RekorKeyPath   *string        `json:"rekorPublicKeyPath"`
	RekorKeyPaths  *[]string      `json:"rekorPublicKeyPaths"`
	RekorKeyData   *string        `json:"rekorPublicKeyData"`
	RekorKeyDatas  *[]string      `json:"rekorPublicKeyDatas"`
	SignedIdentity jsontext.Value `json:"signedIdentity"`
}

// fulcioJSON is the member fulcio.
type fulcioJSON struct {
	CAPath       *string `json:"caPath"`
	CAData       *string `json:"caData"`
	OIDCIssuer   string  `json:"oidcIssuer"`
	SubjectEmail string  `json:"subjectEmail"`
}

// pkiJSON is the member pki.
type pkiJSON struct {
	RootsPath         *string `json:"caRootsPath"`
	RootsData         *string `json:"caRootsData"`
	IntermediatesPath *string `json:"caIntermediatesPath"`
	IntermediatesData *string `json:"caIntermediatesData"`
	SubjectEmail      *string `json:"subjectEmail"`
	SubjectHostname   *string `json:"subjectHostname"`
}

func parseSigstore(raw jsontext.Value) (requirement, error) {
	r := requirement{kind: typeSigstore}
	var doc sigstoreJSON
	if err := unmarshal(raw, &doc); err != nil {
		return r, err
	}
	signer, err := exactlyOne("keyPath, keyPaths, keyData, keyDatas, fulcio and pki", []member{
		byPath("keyPath", doc.KeyPath), byPaths("keyPaths", doc.KeyPaths),
		inPlace("keyData", doc.KeyData), allInPlace("keyDatas", doc.KeyDatas),
		{name: "fulcio", given: len(doc.Fulcio) > 0}, {name: "pki", given: len(doc.PKI) > 0},
	})
	if err != nil {
		return r, err
	}
	switch signer.name {
	case "fulcio":
		err = r.setFulcio(doc.Fulcio)
	case "pki":
		err = r.setPKI(doc.PKI)
	default:
		err = r.take(roleSigner, signer)
	}
	if err != nil {
		return r, err
	}
	if err := r.setRekor(&doc); err != nil {
		return r, err
	}
	r.identity, err = signedIdentity(doc.SignedIdentity)
	return r, err
}

// setRekor takes the keys of the transparency log. A certificate needs one: it tells, as nothing else here does, when
// the signature was made. The guest's clock is the host's and cannot make a certificate valid.
func (r *requirement) setRekor(doc *sigstoreJSON) error {
	members := []member{
		byPath("rekorPublicKeyPath", doc.RekorKeyPath), byPaths("rekorPublicKeyPaths", doc.RekorKeyPaths),
		inPlace("rekorPublicKeyData", doc.RekorKeyData), allInPlace("rekorPublicKeyDatas", doc.RekorKeyDatas),
	}
	given := false
	for _, m := range members {
		given = given || m.given
	}
	if !given && r.authority == nil {
		return nil
	}
	key, err := exactlyOne("rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData and rekorPublicKeyDatas", members)
	if err != nil && r.authority != nil {
		return fmt.Errorf("judging a certificate needs the time from a log: %w", err)
	}
	if err != nil {
		return err
	}
	return r.take(roleRekor, key)
}

func (r *requirement) setFulcio(raw jsontext.Value) error {
	var doc fulcioJSON
	if err := unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("fulcio: %w", err)
	}
	ca, err := exactlyOne("caPath and caData", []member{byPath("caPath", doc.CAPath), inPlace("caData", doc.CAData)})
	switch {
	case err != nil:
	case doc.OIDCIssuer == "":
		err = errors.New("no oidcIssuer")
	case doc.SubjectEmail == "":
		err = errors.New("no subjectEmail")
	default:
		r.authority = &authority{issuer: doc.OIDCIssuer, email: doc.SubjectEmail}
		err = r.take(roleRoot, ca)
	}
	if err != nil {
		return fmt.Errorf("fulcio: %w", err)
	}
	return nil
}

func (r *requirement) setPKI(raw jsontext.Value) error {
	var doc pkiJSON
	if err := unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	if err := r.takePKI(&doc); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return nil
}

func (r *requirement) takePKI(doc *pkiJSON) error {
	roots, err := exactlyOne("caRootsPath and caRootsData",
		[]member{byPath("caRootsPath", doc.RootsPath), inPlace("caRootsData", doc.RootsData)})
	if err != nil {
		return err
	}
	r.authority = &authority{}
	for _, subject := range []struct {
		name  string
		value *string
		into  *string
	}{{"subjectEmail", doc.SubjectEmail, &r.authority.email}, {"subjectHostname", doc.SubjectHostname, &r.authority.hostname}} {
		if subject.value == nil {
			continue
		}
		if *subject.value == "" {
			return fmt.Errorf("%s is empty", subject.name)
		}
		*subject.into = *subject.value
	}
	if r.authority.email == "" && r.authority.hostname == "" {
		return errors.New("neither subjectEmail nor subjectHostname")
	}
	if err := r.take(roleRoot, roots); err != nil {
		return err
	}
	below := []member{byPath("caIntermediatesPath", doc.IntermediatesPath), inPlace("caIntermediatesData", doc.IntermediatesData)}
	if !below[0].given && !below[1].given {
		return nil
	}
	intermediates, err := exactlyOne("caIntermediatesPath and caIntermediatesData", below)
	if err != nil {
		return err
	}
	return r.take(roleIntermediate, intermediates)
}
