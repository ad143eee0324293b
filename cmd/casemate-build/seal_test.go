// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/keyprovider"
)

type secrets map[string][]byte

func (s secrets) Key(_ context.Context, uri string) ([]byte, error) {
	if secret, ok := s[uri]; ok {
		return bytes.Clone(secret), nil
	}
	return nil, errors.New("no such secret")
}

// What keygen and seal write is what a guest opens.
func TestSealedForAGuest(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "owner")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"keygen", "--out", prefix}, streams{out: &out, err: &errs}); code != exitDone {
		t.Fatalf("keygen: %s", &errs)
	}
	out.Reset()
	args := []string{"seal", "kbs:///app/config/x", "--key", prefix + ".key", "--key-id", "kbs:///app/signing/1", "--jwk-out", prefix + ".jwk"}
	if code := run(t.Context(), args, streams{out: &out, err: &errs}); code != exitDone {
		t.Fatalf("seal: %s", &errs)
	}
	jwk, err := os.ReadFile(prefix + ".jwk")
	if err != nil {
		t.Fatal(err)
	}
	keys := secrets{"kbs:///app/signing/1": jwk, "kbs:///app/config/x": []byte("hunter2")}
	got, err := (&keyprovider.Unsealer{Keys: keys}).Unseal(t.Context(), bytes.TrimSpace(out.Bytes()))
	if err != nil || string(got) != "hunter2" {
		t.Fatalf("got %q, %v", got, err)
	}
	out.Reset()
	if code := run(t.Context(), args, streams{out: &out, err: &errs}); code != exitFailed || out.Len() != 0 {
		t.Errorf("a JWK that exists was overwritten: exit code %d", code)
	}
	if code := run(t.Context(), args[:2], streams{out: &out, err: &errs}); code != exitUsage {
		t.Errorf("without a key: exit code %d", code)
	}
}
