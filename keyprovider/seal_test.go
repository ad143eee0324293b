// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
)

func TestSealVaultRoundTrip(t *testing.T) {
	key := newSealKey(t)
	jwk, err := VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text, err := SealVault(key, sealKID, sealedName)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{sealKID: jwk, sealedName: []byte("hunter2")}
	got, err := (&Unsealer{Keys: &keyMap{keys: keys}}).Unseal(t.Context(), text)
	if err != nil || string(got) != "hunter2" {
		t.Fatalf("got %q, %v", got, err)
	}
	if keys[sealKID], err = VerificationKey(&newSealKey(t).PublicKey); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Unsealer{Keys: &keyMap{keys: keys}}).Unseal(t.Context(), text); err == nil {
		t.Error("opened under somebody else's key")
	}
}

func TestSealVaultRefuses(t *testing.T) {
	key := newSealKey(t)
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key       *ecdsa.PrivateKey
		kid, name string
	}{
		"key id that is a file": {key, "file:///key", sealedName},
		"name that is no URI":   {key, sealKID, "password"},
		"another curve":         {other, sealKID, sealedName},
	} {
		if text, err := SealVault(c.key, c.kid, c.name); err == nil {
			t.Errorf("%s: sealed %s", name, text)
		}
	}
	if _, err := VerificationKey(&other.PublicKey); err == nil {
		t.Error("wrote a verification key of another curve")
	}
}
