// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/storage"
)

// sampleAttester is believed by kbstest.
type sampleAttester struct{}

func (sampleAttester) TEE() evidence.TEE { return evidence.Sample }

func (sampleAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

// testBroker is a broker over TLS and its client.
func testBroker(t *testing.T) (*kbstest.Server, *kbs.Client) {
	t.Helper()
	broker := kbstest.StartTLS()
	t.Cleanup(broker.Close)
	client, err := kbs.New(kbs.Config{URL: broker.URL, Roots: broker.Roots, Attester: sampleAttester{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return broker, client
}

// TestVolumeCounters: what the relying party answers about a counter arrives as package storage knows it.
func TestVolumeCounters(t *testing.T) {
	broker, client := testBroker(t)
	c := (volumeKeys{secrets: client}).volumes(nil).Counter
	if last, reset, err := c.Last(t.Context(), "v"); err != nil || reset || last != (storage.Generation{}) {
		t.Errorf("nothing kept: %+v, %v, %v", last, reset, err)
	}
	one, two := storage.Generation{Number: 1, ID: [16]byte{1}}, storage.Generation{Number: 2, ID: [16]byte{2}}
	if err := c.Raise(t.Context(), "v", storage.Generation{}, one); err != nil {
		t.Error(err)
	}
	if err := c.Raise(t.Context(), "v", two, storage.Generation{Number: 3}); !errors.Is(err, storage.ErrNotLast) {
		t.Errorf("from another generation: %v", err)
	}
	if err := errors.Join(c.Raise(t.Context(), "v", one, two), c.Raise(t.Context(), "v", one, two)); err != nil {
		t.Errorf("twice the same, as when an answer got lost: %v", err)
	}
	broker.Put("counter/v", evidence.Counter{Generation: evidence.Generation(two), Reset: true}.Encode())
	if last, reset, err := c.Last(t.Context(), "v"); err != nil || !reset || last != two {
		t.Errorf("%+v, %v, %v", last, reset, err)
	}
	nobody, err := kbs.New(kbs.Config{URL: "https://127.0.0.1:1", Roots: broker.Roots, Attester: sampleAttester{}})
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	if _, _, err := (counters{nobody}).Last(t.Context(), "v"); !errors.Is(err, kbs.ErrUnavailable) {
		t.Errorf("nobody answers, which is not the same as nothing kept: %v", err)
	}
	if v := (volumeKeys{secrets: noKBS{}}).volumes(nil); v.Counter != nil {
		t.Error("a counter without a relying party")
	}
}

// TestVolumeKeySealed: a volume's key may be a sealed secret, which stands for one of the relying party's and counts
// only under its verification key.
func TestVolumeKeySealed(t *testing.T) {
	broker, client := testBroker(t)
	const keyID, name = "kbs:///pod/seal/1", "kbs:///pod/volume/sealed"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keyprovider.SealVault(key, keyID, name)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	broker.Put("pod/seal/1", public)
	broker.Put("pod/volume/sealed", []byte("the volume's key"))
	keys := volumeKeys{client, &keyprovider.Unsealer{Keys: client}}
	if got, err := keys.Key(t.Context(), string(sealed)); err != nil || string(got) != "the volume's key" {
		t.Errorf("%q, %v", got, err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err = keyprovider.SealVault(other, keyID, name); err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Key(t.Context(), string(sealed)); err == nil {
		t.Errorf("of another signer: %q", got)
	}
}
