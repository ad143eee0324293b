// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func example() Result {
	return Result{
		Kind:   SNP,
		Inputs: []Input{File("firmware", []byte("f")), File("kernel", nil), Setting("append", "quiet")},
		Values: []Value{{Name: "measurement", Hex: strings.Repeat("ab", 48), From: []string{"firmware", "append"}}},
	}
}

func TestResultRoundTrip(t *testing.T) {
	want := example()
	text, err := want.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	again, err := got.JSON()
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("encoded again: %s, %v", again, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := example().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ old, new, want string }{
		"another case":          {`"kind"`, `"Kind"`, "parsing result"},
		"unknown member":        {`"kind"`, `"x":1,"kind"`, "parsing result"},
		"member twice":          {`"kind"`, `"kind":"tdx","kind"`, "parsing result"},
		"unknown kind":          {`"snp"`, `"sgx"`, `kind "sgx"`},
		"from nowhere":          {`"firmware",`, `"initrd",`, "not there"},
		"upper-case hex":        {"abab", "ABab", "lower-case"},
		"short value":           {strings.Repeat("ab", 48), "abab", "2 bytes"},
		"odd value":             {strings.Repeat("ab", 48), "aba", "lower-case"},
		"input twice":           {`"name": "kernel"`, `"name": "firmware"`, "twice"},
		"no name":               {`"name": "kernel"`, `"name": ""`, "0 bytes"},
		"terminal escape":       {`"name": "kernel"`, `"name": "\u001b[2J"`, "control characters"},
		"C1 control":            {`"name": "kernel"`, `"name": "\u009b2J"`, "control characters"},
		"both file and setting": {`"text": "quiet"`, `"text": "quiet", "sha256": "` + strings.Repeat("00", 32) + `"`, "neither"},
		"size without hash":     {`"text": "quiet"`, `"size": 3`, "no hash"},
		"negative size":         {`"size": 1`, `"size": -1`, "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(good), tt.old, tt.new, 1)
			if text == string(good) {
				t.Fatal("nothing was replaced")
			}
			if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := Parse(make([]byte, MaxSize+1)); err == nil {
		t.Error("a result over the cap is taken")
	}
	if _, err := Parse([]byte(`{"kind":"snp","inputs":[],"values":[]}`)); err == nil {
		t.Error("a result without values is taken")
	}
}

func FuzzParse(f *testing.F) {
	good, err := example().JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Parse(again); err != nil || b.Kind != r.Kind {
			t.Fatalf("%v", err)
		}
	})
}
