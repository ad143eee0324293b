// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func bundleKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func release() Bundle {
	return Bundle{Release: "1.0", Results: []Result{
		{Kind: SNP, Inputs: []Input{Setting("append", "quiet")}, Values: []Value{{"measurement vcpus=1", strings.Repeat("ab", 48), []string{"append"}}}},
		{Kind: TDX, Inputs: []Input{}, Values: []Value{{"MRTD", strings.Repeat("cd", 48), []string{}}}},
	}}
}

func TestBundle(t *testing.T) {
	key := bundleKey(t)
	text, err := release().Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(text, &key.PublicKey)
	if err != nil || got.Release != "1.0" || len(got.Results) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if r, ok := got.Of(TDX); !ok || r.Values[0].Name != "MRTD" {
		t.Errorf("got %+v", r)
	}
	if _, ok := got.Of(TPM); ok {
		t.Error("a kind that is not there")
	}
	if _, err := Open(text, &bundleKey(t).PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("by another key: %v", err)
	}
	// One value more, one type changed, the signature gone: nothing of it is believed.
	payload := text[bytes.Index(text, []byte(`"payload": "`))+12:]
	raw, err := base64.StdEncoding.DecodeString(string(payload[:bytes.IndexByte(payload, '"')]))
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) []byte { return bytes.Replace(text, []byte(old), []byte(new), 1) }
	changed := base64.StdEncoding.EncodeToString(bytes.Replace(raw, []byte("abab"), []byte("acab"), 1))
	for name, text := range map[string][]byte{
		"a value changed":     swap(base64.StdEncoding.EncodeToString(raw), changed),
		"another type":        swap(payloadType, "application/vnd.in-toto+json"),
		"no signature":        swap(`"sig": "`, `"sig": "AA`),
		"an unknown member":   swap(`"payloadType"`, `"x": 1, "payloadType"`),
		"a member twice":      swap(`"payloadType"`, `"payload": "", "payloadType"`),
		"another spelling":    swap(`"payload":`, `"Payload":`),
		"something behind":    append(bytes.Clone(text), '{'),
		"over its cap":        bytes.Repeat([]byte(" "), MaxBundleSize+1),
		"nothing":             nil,
		"the bundle unsigned": raw,
	} {
		if b, err := Open(text, &key.PublicKey); err == nil {
			t.Errorf("%s: got %+v", name, b)
		}
	}
	for name, b := range map[string]Bundle{
		"no release":      {Results: release().Results},
		"no results":      {Release: "1"},
		"a kind twice":    {Release: "1", Results: append(release().Results, release().Results[0])},
		"a broken result": {Release: "1", Results: []Result{{Kind: SNP}}},
	} {
		if _, err := b.Sign(key); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no PEM": "x", "a private key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"no key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "over its cap": strings.Repeat("-", maxKeySize+1),
	} {
		if _, err := ParseKey([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// FuzzOpen: whatever the envelope, a payload that the key has not signed is not returned.
func FuzzOpen(f *testing.F) {
	key := bundleKey(f)
	text, err := release().Sign(bundleKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Open(text, &key.PublicKey); err == nil {
			t.Error("opened without a signature")
		}
	})
}
