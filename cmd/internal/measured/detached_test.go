// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
)

func TestDetached(t *testing.T) {
	key := bundleKey(t)
	message := []byte(`{"version":"0.1.0"}` + "\n")
	sig, err := SignDetached(message, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyDetached(message, sig, &key.PublicKey); err != nil {
		t.Error(err)
	}
	if err := VerifyDetached(message, bytes.TrimSpace(sig), &key.PublicKey); err != nil {
		t.Errorf("without a line's end: %v", err)
	}
	if err := VerifyDetached(message, sig, &bundleKey(t).PublicKey); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	for name, changed := range map[string][]byte{"a byte": bytes.Replace(message, []byte("1"), []byte("2"), 1), "no line's end": bytes.TrimSpace(message), "nothing": nil} {
		if err := VerifyDetached(changed, sig, &key.PublicKey); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	der, err := base64.StdEncoding.DecodeString(string(sig))
	if err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string][]byte{
		"none": nil, "in DER": der, "twice": append(bytes.Clone(sig), sig...), "cut": sig[:20], "over its cap": bytes.Repeat([]byte("A"), MaxSignatureSize+4),
	} {
		if err := VerifyDetached(message, sig, &key.PublicKey); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}
