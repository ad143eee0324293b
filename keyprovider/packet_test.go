// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParsePacketVectors(t *testing.T) {
	for name, raw := range readVectors(t).packets {
		p, err := ParsePacket(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := A256GCM
		if strings.HasSuffix(name, "-ctr") {
			want = A256CTR
		}
		if p.WrapType != want || p.KeyID != testKeyID {
			t.Errorf("%s: got %s with %s, want %s with %s", name, p.WrapType, p.KeyID, want, testKeyID)
		}
	}
}

// goodPacket has its members one a line, so that a case can replace one.
const goodPacket = `{
"kid":"kbs:///a/b/c",
"wrapped_data":"AAAAAAAAAAAAAAAAAAAAAAA=",
"iv":"AAAAAAAAAAAAAAAA",
"wrap_type":"A256GCM"
}`

func TestParsePacketRefuses(t *testing.T) {
	if _, err := ParsePacket([]byte(goodPacket)); err != nil {
		t.Fatalf("the packet that the cases alter is not good: %v", err)
	}
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"empty object":              {goodPacket, `{}`, ErrPacket},
		"empty input":               {goodPacket, ``, ErrPacket},
		"array":                     {goodPacket, `[]`, ErrPacket},
		"null":                      {goodPacket, `null`, ErrPacket},
		"trailing bytes":            {"\n}", "\n}x", ErrPacket},
		"second document":           {"\n}", "\n}{}", ErrPacket},
		"truncated":                 {"\n}", "", ErrPacket},
		"member twice":              {"\n}", `,"kid":"kbs:///x/y/z"}`, ErrPacket},
		"member in another case":    {`"kid"`, `"KID"`, ErrPacket},
		"second kid in other case":  {"\n}", `,"Kid":"kbs:///x/y/z"}`, ErrPacket},
		"unknown member":            {"\n}", `,"aad":"AA=="}`, ErrPacket},
		"invalid UTF-8":             {"kbs:///a", "kbs:///\xff", ErrPacket},
		"no kid":                    {`"kid":"kbs:///a/b/c",`, ``, ErrPacket},
		"no iv":                     {`"iv":"AAAAAAAAAAAAAAAA",`, ``, ErrPacket},
		"null iv":                   {`"AAAAAAAAAAAAAAAA"`, `null`, ErrPacket},
		"short iv":                  {`"AAAAAAAAAAAAAAAA"`, `"AAAA"`, ErrPacket},
		"iv of a counter block":     {`"AAAAAAAAAAAAAAAA"`, `"AAAAAAAAAAAAAAAAAAAAAA=="`, ErrPacket},
		"no wrap type":              {`,` + "\n" + `"wrap_type":"A256GCM"`, ``, ErrPacket},
		"unknown wrap type":         {"A256GCM", "none", ErrPacket},
		"wrap type in lower case":   {"A256GCM", "a256gcm", ErrPacket},
		"ctr with an iv for gcm":    {"A256GCM", "A256CTR", ErrPacket},
		"no wrapped data":           {`"wrapped_data":"AAAAAAAAAAAAAAAAAAAAAAA=",`, ``, ErrPacket},
		"tag without ciphertext":    {"AAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAA==", ErrPacket},
		"base64 with a line break":  {"AAAAAAAAAAAAAAAAAAAAAAA=", `AAAAAAAAAAAA\nAAAAAAAAAAA=`, ErrPacket},
		"base64url":                 {"AAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAA_8=", ErrPacket},
		"base64 without padding":    {"AAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAA", ErrPacket},
		"wrapped data as an array":  {`"AAAAAAAAAAAAAAAAAAAAAAA="`, `[1,2,3]`, ErrPacket},
		"options over their cap":    {"AAAAAAAAAAAAAAAAAAAAAAA=", strings.Repeat("AAAA", (MaxOptionsBytes+16)/3+1), ErrPacket},
		"packet over its cap":       {"\n}", "\n}" + strings.Repeat(" ", MaxPacketBytes), ErrPacket},
		"key id with an escape":     {"kbs:///a/b/c", "kbs:///a/b/%2e", ErrPacket},
		"version of the future":     {"\n}", `,"version":"0.2.0"}`, ErrPacket},
		"version as a number":       {"\n}", `,"version":1}`, ErrPacket},
		"provider aliyun":           {"\n}", `,"provider":"aliyun"}`, ErrProvider},
		"provider in upper case":    {"\n}", `,"provider":"KBS"}`, ErrProvider},
		"empty provider":            {"\n}", `,"provider":""}`, ErrProvider},
		"provider settings a list":  {"\n}", `,"provider_settings":[]}`, ErrPacket},
		"annotations a string":      {"\n}", `,"annotations":"x"}`, ErrPacket},
		"settings repeat a member":  {"\n}", `,"provider_settings":{"a":1,"a":2}}`, ErrPacket},
		"settings nested very deep": {"\n}", `,"provider_settings":` + strings.Repeat(`{"a":`, 3000), ErrPacket},
	} {
		t.Run(name, func(t *testing.T) {
			raw := strings.Replace(goodPacket, c.old, c.new, 1)
			if raw == goodPacket {
				t.Fatal("the case alters nothing")
			}
			if p, err := ParsePacket([]byte(raw)); !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v, want %v", p, err, c.want)
			}
		})
	}
}

// A packet of another key management service says so even though the members
// that only a KBS needs are missing.
func TestParsePacketOfAnotherProvider(t *testing.T) {
	raw := `{"version":"0.1.0","provider":"aliyun","kid":"key-hzz","wrapped_data":"AAAA","provider_settings":{"client_type":"client_key"},"annotations":{"iv":"AAAA"}}`
	if _, err := ParsePacket([]byte(raw)); !errors.Is(err, ErrProvider) {
		t.Errorf("got %v, want %v", err, ErrProvider)
	}
}

func TestParsePacketToleratesDefaultedMembers(t *testing.T) {
	raw := strings.Replace(goodPacket, "\n}", `,"provider":null,"version":null,"provider_settings":null,"annotations":{"x":["y"]}}`, 1)
	if _, err := ParsePacket([]byte(raw)); err != nil {
		t.Error(err)
	}
}

func FuzzParsePacket(f *testing.F) {
	for _, raw := range readVectors(f).packets {
		f.Add([]byte(raw))
	}
	f.Add([]byte(goodPacket))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePacket(raw)
		if err != nil {
			if !errors.Is(err, ErrPacket) && !errors.Is(err, ErrProvider) {
				t.Errorf("unnamed error: %v", err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePacket(again)
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Errorf("%+v encodes to %s, which reads as %+v, %v", p, again, q, err)
		}
	})
}
