// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/ecdsa"
	"errors"
	"testing"
)

// A key of measured configuration verifies under its own name, and stands in for no key of the relying party.
func TestUnsealByAMeasuredKey(t *testing.T) {
	key, other := newSealKey(t), newSealKey(t)
	keys := &keyMap{keys: map[string][]byte{sealKID: publicJWK(t, other, ""), sealedName: []byte("hunter2")}}
	u := &Unsealer{Keys: keys, Measured: map[string]*ecdsa.PublicKey{"owner": &key.PublicKey}}
	named := func(name string) string { return `{"alg":"ES256","kid":"` + name + `"}` }
	if got, err := u.Unseal(t.Context(), sealText(t, key, named("owner"), sealPayload)); err != nil || string(got) != "hunter2" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"signed by another key":            {sealText(t, other, named("owner"), sealPayload), ErrSealedSignature},
		"the measured key as the KBS' one": {sealText(t, key, sealHeader, sealPayload), ErrSealedSignature},
		"a name that nothing measures":     {sealText(t, key, named("owner2"), sealPayload), ErrSealed},
		"a file":                           {sealText(t, key, named("/run/confidential-containers/cdh/sealed-secret/owner"), sealPayload), ErrSealed},
		"no name":                          {sealText(t, key, named(""), sealPayload), ErrSealed},
	} {
		if got, err := u.Unseal(t.Context(), c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
