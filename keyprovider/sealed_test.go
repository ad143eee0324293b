// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	sealKID     = "kbs:///default/signing-key/1"
	sealedName  = "kbs:///default/password/1"
	sealHeader  = `{"alg":"ES256","kid":"` + sealKID + `"}`
	sealPayload = `{"version":"0.1.0","type":"vault","name":"` + sealedName + `","provider":"kbs","provider_settings":{},"annotations":{}}`
)

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newSealKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicJWK(t testing.TB, key *ecdsa.PrivateKey, more string) []byte {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"kty":"EC","crv":"P-256","x":%q,"y":%q%s}`, b64url(point[1:33]), b64url(point[33:]), more)
}

func sealText(t testing.TB, key *ecdsa.PrivateKey, header, payload string) []byte {
	t.Helper()
	signed := b64url([]byte(header)) + "." + b64url([]byte(payload))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return []byte("sealed." + signed + "." + b64url(sig))
}

func TestUnsealVault(t *testing.T) {
	key := newSealKey(t)
	for name, c := range map[string]struct{ header, payload, jwk string }{
		"plain":                {sealHeader, sealPayload, ""},
		"private key given":    {sealHeader, sealPayload, `,"d":"AAAA"`},
		"typ and alg":          {`{"typ":"JWS","alg":"ES256","kid":"` + sealKID + `"}`, sealPayload, `,"alg":"ES256","use":"sig"`},
		"provider in capitals": {sealHeader, strings.Replace(sealPayload, `"kbs"`, `"KBS"`, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			keys := &keyMap{keys: map[string][]byte{sealKID: publicJWK(t, key, c.jwk), sealedName: []byte("hunter2")}}
			got, err := (&Unsealer{Keys: keys}).Unseal(t.Context(), sealText(t, key, c.header, c.payload))
			if err != nil || string(got) != "hunter2" {
				t.Fatalf("got %q, %v", got, err)
			}
			if len(bytes.Trim(keys.given[0], "\x00")) != 0 {
				t.Error("the verification key document is still in memory")
			}
		})
	}
}

func TestUnsealRefuses(t *testing.T) {
	key, thief := newSealKey(t), newSealKey(t)
	good := string(sealText(t, key, sealHeader, sealPayload))
	parts := strings.Split(good, ".")
	other := b64url([]byte(strings.Replace(sealPayload, "password", "other", 1)))
	head := func(h string) string { return string(sealText(t, key, h, sealPayload)) }
	pay := func(old, now string) string {
		return string(sealText(t, key, sealHeader, strings.Replace(sealPayload, old, now, 1)))
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"signed by another":         {string(sealText(t, thief, sealHeader, sealPayload)), ErrSealedSignature},
		"payload exchanged":         {strings.Join([]string{"sealed", parts[1], other, parts[3]}, "."), ErrSealedSignature},
		"zero signature":            {strings.Join([]string{"sealed", parts[1], parts[2], b64url(make([]byte, 64))}, "."), ErrSealedSignature},
		"no signature":              {strings.Join([]string{"sealed", parts[1], parts[2], ""}, "."), ErrSealed},
		"legacy fake header":        {"sealed.fakejwsheader." + parts[2] + ".fakesignature", ErrSealed},
		"alg none":                  {head(`{"alg":"none","kid":"` + sealKID + `"}`), ErrSealed},
		"alg HS256 by public key":   {head(`{"alg":"HS256","kid":"` + sealKID + `"}`), ErrSealed},
		"no kid":                    {head(`{"alg":"ES256"}`), ErrSealed},
		"kid is a file":             {head(`{"alg":"ES256","kid":"../../etc/key"}`), ErrSealed},
		"key in the header":         {head(`{"alg":"ES256","kid":"` + sealKID + `","jwk":{}}`), ErrSealed},
		"crit":                      {head(`{"alg":"ES256","kid":"` + sealKID + `","crit":["b64"],"b64":false}`), ErrSealed},
		"kid twice":                 {head(`{"alg":"ES256","kid":"kbs:///a/b/c","kid":"` + sealKID + `"}`), ErrSealed},
		"kid names no key":          {head(`{"alg":"ES256","kid":"` + sealedName + `"}`), ErrSealedSignature},
		"kid does not exist":        {head(`{"alg":"ES256","kid":"kbs:///no/such/key"}`), ErrKey},
		"version":                   {pay("0.1.0", "0.2.0"), ErrSealed},
		"no version":                {pay(`"version":"0.1.0",`, ""), ErrSealed},
		"name twice":                {pay(`"type"`, `"name":"kbs:///a/b/c","type"`), ErrSealed},
		"capital member":            {pay(`"name"`, `"Name"`), ErrSealed},
		"unknown type":              {pay(`"vault"`, `"cave"`), ErrSealed},
		"vault with envelope parts": {pay(`"type"`, `"key_id":"k","type"`), ErrSealed},
		"annotations missing":       {pay(`,"annotations":{}`, ""), ErrSealed},
		"settings null":             {pay(`"provider_settings":{}`, `"provider_settings":null`), ErrSealed},
		"provider aws":              {pay(`"kbs"`, `"aws"`), ErrSealed},
		"name climbs":               {pay("default/password", "../password"), ErrSealed},
		"name does not exist":       {pay("password", "nothing"), ErrKey},
		"no prefix":                 {strings.TrimPrefix(good, "sealed."), ErrSealed},
		"five parts":                {good + ".AA", ErrSealed},
		"padded":                    {good + "==", ErrSealed},
		"line break inside":         {good[:20] + "\n" + good[20:], ErrSealed},
		"empty":                     {"", ErrSealed},
		"too long":                  {"sealed." + strings.Repeat("A", MaxSealedBytes), ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			keys := &keyMap{keys: map[string][]byte{sealKID: publicJWK(t, key, ""), sealedName: []byte("hunter2")}}
			got, err := (&Unsealer{Keys: keys}).Unseal(t.Context(), []byte(c.text))
			if !errors.Is(err, c.want) || got != nil {
				t.Fatalf("got %q, %v, want %v", got, err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret in the error: %v", err)
			}
		})
	}
}

func TestVerificationKeyRefuses(t *testing.T) {
	good := string(publicJWK(t, newSealKey(t), ""))
	for name, raw := range map[string]string{
		"empty": "", "not JSON": "secret", "other curve": strings.Replace(good, "P-256", "P-384", 1),
		"other type":  strings.Replace(good, `"EC"`, `"oct"`, 1),
		"off curve":   strings.Replace(good, good[strings.Index(good, `"y"`):], `"y":"`+b64url(make([]byte, 32))+`"}`, 1),
		"short y":     strings.Replace(good, good[strings.Index(good, `"y"`):], `"y":"AAAA"}`, 1),
		"for sealing": strings.Replace(good, "{", `{"use":"enc",`, 1),
		"y twice":     strings.Replace(good, "{", `{"y":"AAAA",`, 1),
	} {
		if _, err := ParseVerificationKey([]byte(raw)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// testKMS holds one data key under one id.
type testKMS struct {
	keyID, encrypted string
	dek              []byte
}

func (k *testKMS) Decrypt(_ context.Context, keyID string, encrypted, _, _ []byte) ([]byte, error) {
	if keyID != k.keyID || string(encrypted) != k.encrypted {
		return nil, errNoKey
	}
	return bytes.Clone(k.dek), nil
}

func TestUnsealEnvelope(t *testing.T) {
	key, dek, iv := newSealKey(t), bytes.Repeat([]byte{9}, KEKBytes), bytes.Repeat([]byte{1}, gcmIVBytes)
	block, err := aes.NewCipher(dek)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	std := base64.StdEncoding.EncodeToString
	payload := fmt.Sprintf(`{"version":"0.1.0","type":"envelope","provider":"test","provider_settings":{},"annotations":{},`+
		`"key_id":"k1","encrypted_key":%q,"encrypted_data":%q,"wrap_type":"A256GCM","iv":%q}`,
		std([]byte("wrapped")), std(aead.Seal(nil, iv, []byte("hunter2"), nil)), std(iv))
	for name, c := range map[string]struct {
		old, now string
		want     error
	}{
		"opens":              {"", "", nil},
		"another key id":     {`"k1"`, `"k2"`, ErrKey},
		"another iv":         {std(iv), std(bytes.Repeat([]byte{2}, gcmIVBytes)), ErrUnseal},
		"short iv":           {std(iv), std(iv[:8]), ErrSealed},
		"unauthenticated":    {"A256GCM", "A256CTR", ErrSealed},
		"kbs is no KMS":      {`"test"`, `"kbs"`, ErrSealed},
		"KMS not configured": {`"test"`, `"aws"`, ErrSealed},
		"vault member too":   {`"key_id"`, `"name":"n","key_id"`, ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			u := &Unsealer{
				Keys: &keyMap{keys: map[string][]byte{sealKID: publicJWK(t, key, "")}},
				KMS:  map[string]KMS{"test": &testKMS{keyID: "k1", encrypted: "wrapped", dek: dek}},
			}
			got, err := u.Unseal(t.Context(), sealText(t, key, sealHeader, strings.Replace(payload, c.old, c.now, 1)))
			if !errors.Is(err, c.want) || (c.want == nil && string(got) != "hunter2") || (c.want != nil && got != nil) {
				t.Errorf("got %q, %v, want %v", got, err, c.want)
			}
		})
	}
}

func FuzzParseSealed(f *testing.F) {
	key := newSealKey(f)
	f.Add(sealText(f, key, sealHeader, sealPayload))
	f.Add([]byte("sealed.fakejwsheader.e30.fakesignature"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSealed(text)
		if err != nil {
			return
		}
		if len(s.signature) != 64 || !bytes.HasPrefix(text, append([]byte("sealed."), s.signed...)) {
			t.Fatalf("signed part %q of %q", s.signed, text)
		}
		_, _ = parseSealedPayload(s.payload)
	})
}

// shelf is a SecretStore that tells what it was asked.
type shelf struct{ asked []string }

func (s *shelf) Secret(_ context.Context, name string, settings, annotations []byte) ([]byte, error) {
	s.asked = append(s.asked, name+" "+string(settings)+" "+string(annotations))
	return []byte("hunter2"), nil
}

func TestUnsealFromAnotherStore(t *testing.T) {
	key := newSealKey(t)
	keys := &keyMap{keys: map[string][]byte{sealKID: publicJWK(t, key, "")}}
	text, err := SealStored(key, sealKID, "vault", "app/db", []byte("{}"), []byte(`{"field":"password"}`))
	if err != nil {
		t.Fatal(err)
	}
	s := new(shelf)
	got, err := (&Unsealer{Keys: keys, Stores: map[string]SecretStore{"vault": s}}).Unseal(t.Context(), text)
	if err != nil || string(got) != "hunter2" || len(s.asked) != 1 || s.asked[0] != `app/db {} {"field":"password"}` {
		t.Fatalf("got %q, %v, asked %q", got, err, s.asked)
	}
	if _, err := (&Unsealer{Keys: keys}).Unseal(t.Context(), text); !errors.Is(err, ErrSealed) {
		t.Errorf("no store is configured: %v", err)
	}
	// The KBS stays the KBS, whatever the map says.
	other, err := SealVault(key, sealKID, sealedName)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (&Unsealer{Keys: keys, Stores: map[string]SecretStore{"kbs": s}}).Unseal(t.Context(), other); err == nil || len(s.asked) != 1 {
		t.Errorf("got %q, %v from a store called kbs", got, err)
	}
	forged := bytes.Clone(text)
	forged[len(forged)-5] ^= 1
	if _, err := (&Unsealer{Keys: keys, Stores: map[string]SecretStore{"vault": s}}).Unseal(t.Context(), forged); err == nil || len(s.asked) != 1 {
		t.Errorf("a forged text was looked up: %v", err)
	}
}
