// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestUnwrapVectors(t *testing.T) {
	v := readVectors(t)
	for name, raw := range v.packets {
		u := Unwrapper{Keys: oneKey(v.kek), AllowUnauthenticated: true}
		got, err := u.Unwrap(t.Context(), raw)
		if err != nil || !bytes.Equal(got, v.options) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, v.options)
		}
	}
}

func TestUnwrapRefusesCTRByDefault(t *testing.T) {
	v := readVectors(t)
	keys := oneKey(v.kek)
	u := Unwrapper{Keys: keys}
	for _, name := range []string{"v1-ctr", "v2-ctr"} {
		if got, err := u.Unwrap(t.Context(), v.packets[name]); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: got %q, %v, want %v", name, got, err, ErrUnauthenticated)
		}
	}
	if n := keys.calls(); n != 0 {
		t.Errorf("the key was fetched %d times for packets that are refused, want 0", n)
	}
}

// Every single-bit change of an authenticated packet's ciphertext or IV is
// refused.
func TestUnwrapRefusesEveryFlippedBit(t *testing.T) {
	v := readVectors(t)
	good, err := ParsePacket(v.packets["v1-gcm"])
	if err != nil {
		t.Fatal(err)
	}
	u := Unwrapper{Keys: oneKey(v.kek)}
	flip := func(where string, b []byte) {
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			raw, err := good.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := u.Unwrap(t.Context(), raw); !errors.Is(err, ErrUnwrap) {
				t.Fatalf("bit %d of %s flipped: got %q, %v, want %v", i, where, got, err, ErrUnwrap)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
	flip("wrapped data", good.WrappedData)
	flip("iv", good.IV)
}

// A256CTR cannot notice every change, so at least the form must hold: a flip
// in the names, the quotes or the base64 alphabet is refused, and so is the
// wrong key.
func TestUnwrapCTRNeedsTheForm(t *testing.T) {
	v := readVectors(t)
	good, err := ParsePacket(v.packets["v1-ctr"])
	if err != nil {
		t.Fatal(err)
	}
	u := Unwrapper{Keys: oneKey(v.kek), AllowUnauthenticated: true}
	for i := range good.WrappedData {
		good.WrappedData[i] ^= 0x80 // leaves ASCII
		raw, err := good.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Unwrap(t.Context(), raw); !errors.Is(err, ErrUnwrap) {
			t.Fatalf("byte %d altered: %v, want %v", i, err, ErrUnwrap)
		}
		good.WrappedData[i] ^= 0x80
	}
	u.Keys = oneKey(make([]byte, KEKBytes))
	if _, err := u.Unwrap(t.Context(), v.packets["v1-ctr"]); !errors.Is(err, ErrUnwrap) {
		t.Errorf("wrong key: %v, want %v", err, ErrUnwrap)
	}
}

func TestUnwrapRefusesKeys(t *testing.T) {
	v := readVectors(t)
	for name, c := range map[string]struct {
		kek  []byte
		want error
	}{
		"another key":       {bytes.Repeat([]byte{1}, KEKBytes), ErrUnwrap},
		"empty key":         {nil, ErrUnwrap},
		"16 bytes":          {v.kek[:16], ErrUnwrap},
		"33 bytes":          {append(bytes.Clone(v.kek), 0), ErrUnwrap},
		"key with newline":  {append(bytes.Clone(v.kek[:31]), '\n'), ErrUnwrap},
		"key in hex digits": {[]byte(strings.Repeat("0", 64)), ErrUnwrap},
	} {
		u := Unwrapper{Keys: oneKey(c.kek)}
		if got, err := u.Unwrap(t.Context(), v.packets["v1-gcm"]); !errors.Is(err, c.want) {
			t.Errorf("%s: got %q, %v, want %v", name, got, err, c.want)
		}
	}
	u := Unwrapper{Keys: &keyMap{}}
	_, err := u.Unwrap(t.Context(), v.packets["v1-gcm"])
	if !errors.Is(err, ErrKey) || !errors.Is(err, errNoKey) {
		t.Errorf("key not released: %v, want %v and %v", err, ErrKey, errNoKey)
	}
}

func TestUnwrapClearsTheKEK(t *testing.T) {
	v := readVectors(t)
	for name, packet := range map[string]json.RawMessage{
		"success": v.packets["v1-gcm"],
		"failure": json.RawMessage(strings.Replace(string(v.packets["v1-gcm"]), `"iv": "`, `"iv": "A`, 1)),
	} {
		keys := oneKey(v.kek)
		u := Unwrapper{Keys: keys}
		if _, err := u.Unwrap(t.Context(), packet); name == "success" && err != nil {
			t.Fatal(err)
		}
		for _, k := range keys.given {
			if !bytes.Equal(k, make([]byte, len(k))) {
				t.Errorf("%s: the key is still in memory", name)
			}
		}
	}
}

func TestWrapUnwrap(t *testing.T) {
	v := readVectors(t)
	u := Unwrapper{Keys: oneKey(v.kek)}
	seen := map[string]bool{}
	for range 100 {
		raw, err := Wrap(v.kek, testKeyID, v.options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Unwrap(t.Context(), raw)
		if err != nil || !bytes.Equal(got, v.options) {
			t.Fatalf("got %q, %v, want %q", got, err, v.options)
		}
		p, err := ParsePacket(raw)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(p.IV)] {
			t.Fatalf("the iv %x came twice", p.IV)
		}
		seen[string(p.IV)] = true
	}
}

// Readers of v1 know four members and no more.
func TestWrapWritesV1(t *testing.T) {
	v := readVectors(t)
	raw, err := Wrap(v.kek, testKeyID, v.options)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatal(err)
	}
	if len(members) != 4 || members["kid"] != testKeyID || members["wrap_type"] != "A256GCM" || members["iv"] == "" || members["wrapped_data"] == "" {
		t.Errorf("got %s", raw)
	}
}

func TestWrapRefuses(t *testing.T) {
	v := readVectors(t)
	for name, c := range map[string]struct {
		kek   []byte
		keyID string
		plbco string
	}{
		"short key":             {v.kek[:31], testKeyID, string(v.options)},
		"no key":                {nil, testKeyID, string(v.options)},
		"key id without scheme": {v.kek, "/default/image-kek/1", string(v.options)},
		"key id with a host":    {v.kek, "kbs://h/default/image-kek/1", string(v.options)},
		"key id too short":      {v.kek, "kbs:///image-kek/1", string(v.options)},
		"no options":            {v.kek, testKeyID, ""},
		"arbitrary data":        {v.kek, testKeyID, "hello"},
		"options over the cap":  {v.kek, testKeyID, string(v.options) + strings.Repeat(" ", MaxOptionsBytes)},
		"null symkey":           {v.kek, testKeyID, `{"symkey":null,"digest":"","cipheroptions":{}}`},
	} {
		if raw, err := Wrap(c.kek, c.keyID, []byte(c.plbco)); err == nil {
			t.Errorf("%s: got %s, want an error", name, raw)
		}
	}
}

func TestCheckOptionsRefuses(t *testing.T) {
	good := string(readVectors(t).options)
	if err := checkOptions([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new string }{
		"short symkey":         {"ZGVmZ2hpamts", "ZGVm"},
		"digest of another":    {"sha256:", "sha512:"},
		"upper-case digest":    {"5e5e", "5E5E"},
		"short digest":         {"5e5e", "5e"},
		"second cipher option": {`"nonce"`, `"extra":"AA==","nonce"`},
		"renamed nonce":        {`"nonce"`, `"Nonce"`},
		"symkey twice":         {`{"symkey"`, `{"symkey":"AA==","symkey"`},
		"unknown member":       {`{"symkey"`, `{"x":1,"symkey"`},
		"trailing byte":        {`}}`, `}}x`},
		"nonce of 12 bytes":    {"yMnKy8zNzs/Q0dLT1NXW1w==", "yMnKy8zNzs/Q0dLT"},
	} {
		raw := strings.Replace(good, c.old, c.new, 1)
		if raw == good {
			t.Fatalf("%s alters nothing", name)
		}
		if err := checkOptions([]byte(raw)); err == nil {
			t.Errorf("%s: accepted %s", name, raw)
		}
	}
}

// What is wrong with options is never told by quoting them: they hold a key.
func FuzzCheckOptions(f *testing.F) {
	f.Add(readVectors(f).options)
	f.Add([]byte(`{"symkey":"secret","secret":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := checkOptions(raw); err != nil && err != errOptions {
			t.Errorf("error tells more than that: %v", err)
		}
	})
}
