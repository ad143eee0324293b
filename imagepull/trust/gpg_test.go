// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func newGPG(t testing.TB, config *packet.Config) *openpgp.Entity {
	t.Helper()
	if config == nil {
		config = &packet.Config{}
	}
	config.Algorithm = packet.PubKeyAlgoEdDSA
	e, err := openpgp.NewEntity("owner", "", "owner@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func publicRing(t testing.TB, entities ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entities {
		if err := e.Serialize(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// message signs text as gpg --sign does.
func message(t testing.TB, e *openpgp.Entity, text string, config *packet.Config) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, e, nil, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gpgPayload(reference string, digest v1.Hash) string {
	return strings.Replace(payloadFor(reference, digest), payloadType, gpgPayloadType, 1)
}

func gpgPolicy(ring []byte) string {
	return `{'default':[{'type':'signedBy','keyType':'GPGKeys','keyData':'` + base64.StdEncoding.EncodeToString(ring) + `'}]}`
}

// TestSignedBy has one case for each way in which an OpenPGP signature can be
// right or wrong.
func TestSignedBy(t *testing.T) {
	const reference = "quay.io/team/app:v1"
	index, platform := digestOf("index"), digestOf("platform")
	days := func(n int) func() time.Time {
		return func() time.Time { return time.Now().Add(time.Duration(n) * 24 * time.Hour) }
	}
	owner, stranger := newGPG(t, &packet.Config{Time: days(-3)}), newGPG(t, nil)
	old := &packet.Config{Time: days(-2)}
	expiredKey := newGPG(t, &packet.Config{Time: old.Time, KeyLifetimeSecs: 3600})
	revoked := newGPG(t, nil)
	text := gpgPayload(reference, platform)
	good := message(t, owner, text, nil)
	byRevoked := message(t, revoked, text, nil)
	if err := revoked.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, []byte("team"))] ^= 1
	cut := good[:len(good)-40]
	for _, tt := range []struct {
		name string
		ring []byte
		sent [][]byte
		want string // "" admits
	}{
		{"good", publicRing(t, owner), [][]byte{good}, ""},
		{"over the index", publicRing(t, owner), [][]byte{message(t, owner, gpgPayload(reference, index), nil)}, ""},
		{"one of two keys", publicRing(t, stranger, owner), [][]byte{good}, ""},
		{"beside others", publicRing(t, owner), [][]byte{[]byte("noise"), message(t, stranger, text, nil), good}, ""},
		{"none", publicRing(t, owner), nil, "found none"},
		{"another key", publicRing(t, owner), [][]byte{message(t, stranger, text, nil)}, "not by an accepted key"},
		{"flipped content", publicRing(t, owner), [][]byte{flipped}, "bad signature"},
		{"cut before the signature", publicRing(t, owner), [][]byte{cut}, "signature"},
		{"no message", publicRing(t, owner), [][]byte{[]byte(text)}, "not a signed OpenPGP message"},
		{"too large", publicRing(t, owner), [][]byte{make([]byte, maxMessage+1)}, "at most"},
		{"payload too large", publicRing(t, owner), [][]byte{message(t, owner, strings.Repeat("x", maxPayload+1), nil)}, "payload of more"},
		{"another digest", publicRing(t, owner), [][]byte{message(t, owner, gpgPayload(reference, digestOf("other")), nil)}, "for digest"},
		{"another name", publicRing(t, owner), [][]byte{message(t, owner, gpgPayload("quay.io/team/other:v1", platform), nil)}, "for quay.io/team/other"},
		{"cosign's type", publicRing(t, owner), [][]byte{message(t, owner, payloadFor(reference, platform), nil)}, "critical.type"},
		{"expired signature", publicRing(t, owner), [][]byte{message(t, owner, text, &packet.Config{SigLifetimeSecs: 1, Time: days(-1)})}, "bad signature"},
		{"expired key", publicRing(t, expiredKey), [][]byte{message(t, expiredKey, text, old)}, "signature"},
		{"revoked key", publicRing(t, revoked), [][]byte{byRevoked}, "signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := &registry{messages: map[v1.Hash][][]byte{platform: tt.sent}}
			err := policy(t, gpgPolicy(tt.ring)).Check(t.Context(), subject(t, reference, index, platform), src)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want a denial with %q", err, tt.want)
			}
		})
	}
}

// TestSignedByForms: the keyring may be binary or armored, in the policy or behind
// a path; a secret key is refused.
func TestSignedByForms(t *testing.T) {
	const reference = "quay.io/team/app:v1"
	digest, owner := digestOf("image"), newGPG(t, nil)
	ring := publicRing(t, owner)
	var armored bytes.Buffer
	w, err := armor.Encode(&armored, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(ring)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	src := &registry{messages: map[v1.Hash][][]byte{digest: {message(t, owner, gpgPayload(reference, digest), nil)}}}
	for name, text := range map[string]string{"binary": string(ring), "armored": armored.String()} {
		p := policy(t, `{'default':[{'type':'signedBy','keyType':'GPGKeys','keyPath':'/keys/owner.gpg'}]}`)
		if err := p.Check(t.Context(), subject(t, reference, digest), src); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: before its keys were loaded: got %v", name, err)
		}
		if err := p.LoadKeys(t.Context(), keyFiles{"/keys/owner.gpg": text}); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(t.Context(), subject(t, reference, digest), src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var secret bytes.Buffer
	if err := owner.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePolicy([]byte(strings.ReplaceAll(gpgPolicy(secret.Bytes()), "'", `"`))); err == nil || !strings.Contains(err.Error(), "secret key") {
		t.Errorf("secret key: got %v", err)
	}
}

func FuzzOpenSigned(f *testing.F) {
	owner := newGPG(f, nil)
	ring := openpgp.EntityList{owner}
	f.Add(message(f, owner, gpgPayload("a.example/b:c", digestOf("image")), nil))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = openSigned(ring, raw)
		_, _ = parseKeyring(raw)
	})
}
