// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestParseWrapParams(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"keyid=kbs:///a/b/c":                    "kbs:///a/b/c",
		"algorithm=A256GCM":                     "",
		"keyid=kbs:///a/b/c::algorithm=A256GCM": "kbs:///a/b/c",
	} {
		got, err := parseWrapParams(in)
		if err != nil || got.keyID != want {
			t.Errorf("parseWrapParams(%q) = %+v, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseWrapParamsRefuses(t *testing.T) {
	for in, reason := range map[string]string{
		"keypath=/etc/shadow":                     "keypath is refused",
		"keyid=kbs:///a/b/c::keypath=/etc/shadow": "keypath is refused",
		"sample=true":                             "sample key is public",
		"sample":                                  "no value",
		"algorithm=A256CTR":                       "not offered",
		"keyid=/a/b/c":                            "does not start with",
		"keyid=kbs:///a/b/c::keyid=kbs:///x/y/z":  "given twice",
		"KEYID=kbs:///a/b/c":                      "unknown",
		"cmd=rm":                                  "unknown",
		"::":                                      "no value",
		"keyid=kbs:///a/b/c::":                    "no value",
		"keyid=" + strings.Repeat("a", maxParamBytes): "at most",
	} {
		_, err := parseWrapParams(in)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("parseWrapParams(%q): got %v, want an error with %q", in, err, reason)
		}
	}
}

func FuzzParseWrapParams(f *testing.F) {
	f.Add("keyid=kbs:///a/b/c::algorithm=A256GCM")
	f.Add("keypath=/x::sample=true")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := parseWrapParams(raw)
		if err == nil && p.keyID != "" && CheckKeyID(p.keyID) != nil {
			t.Errorf("%q yields the key id %q", raw, p.keyID)
		}
	})
}

func TestParseUnwrapInput(t *testing.T) {
	annotation := b64("packet")
	for name, raw := range map[string]string{
		"Go client":            `{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":{"attestation-agent":["YWJj"]}},"annotation":"` + annotation + `"}}`,
		"null parameter map":   `{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":null},"annotation":"` + annotation + `"}}`,
		"null configuration":   `{"op":"keyunwrap","keywrapparams":{},"keyunwrapparams":{"dc":null,"annotation":"` + annotation + `"}}`,
		"null wrap parameters": `{"op":"keyunwrap","keywrapparams":null,"keyunwrapparams":{"annotation":"` + annotation + `"}}`,
		"no wrap parameters":   `{"op":"keyunwrap","keyunwrapparams":{"annotation":"` + annotation + `"}}`,
	} {
		got, err := parseUnwrapInput([]byte(raw))
		if err != nil || string(got) != "packet" {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, "packet")
		}
	}
}

func TestParseUnwrapInputRefuses(t *testing.T) {
	good := `{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":{}},"annotation":"` + b64("packet") + `"}}`
	for name, c := range map[string]struct{ old, new string }{
		"empty":                    {good, ``},
		"no object":                {good, `[]`},
		"null":                     {good, `null`},
		"operation of wrap":        {"keyunwrap\"", "keywrap\""},
		"no operation":             {`"op":"keyunwrap",`, ``},
		"operation in upper case":  {`"keyunwrap",`, `"KEYUNWRAP",`},
		"operation twice":          {`{"op"`, `{"op":"keywrap","op"`},
		"member in another case":   {`"annotation"`, `"Annotation"`},
		"second annotation":        {`"annotation"`, `"annotation":"AAAA","annotation"`},
		"no unwrap parameters":     {`"keyunwrapparams":{"dc":{"Parameters":{}},"annotation":"` + b64("packet") + `"}`, `"keyunwrapparams":null`},
		"no annotation":            {`,"annotation":"` + b64("packet") + `"`, ``},
		"empty annotation":         {b64("packet"), ``},
		"annotation no base64":     {b64("packet"), `***`},
		"unknown member":           {`{"op"`, `{"cmd":"sh","op"`},
		"unknown unwrap parameter": {`"dc"`, `"path":"/","dc"`},
		"dc a list":                {`{"Parameters":{}}`, `[]`},
		"dc repeats a member":      {`{"Parameters":{}}`, `{"Parameters":{},"Parameters":{}}`},
		"trailing document":        {`"}}`, `"}}{}`},
		"over the cap":             {`"}}`, `"}}` + strings.Repeat(" ", MaxInputBytes)},
	} {
		raw := strings.Replace(good, c.old, c.new, 1)
		if raw == good {
			t.Fatalf("%s alters nothing", name)
		}
		if got, err := parseUnwrapInput([]byte(raw)); err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
}

func TestParseWrapInput(t *testing.T) {
	for name, c := range map[string]struct{ raw, keyID string }{
		"Go client": {
			`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":["` + b64("keyid=kbs:///a/b/c") + `"]},"DecryptConfig":{"Parameters":{"k":["AAAA"]}}},"optsdata":"` + b64("options") + `"},"keyunwrapparams":{"dc":null,"annotation":null}}`,
			"kbs:///a/b/c",
		},
		"null decrypt parameters": {
			`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":["` + b64("keyid=kbs:///a/b/c") + `"]},"DecryptConfig":{"Parameters":null}},"optsdata":"` + b64("options") + `"},"keyunwrapparams":{}}`,
			"kbs:///a/b/c",
		},
		"null parameters":  {`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":null,"DecryptConfig":null},"optsdata":"` + b64("options") + `"}}`, ""},
		"no configuration": {`{"op":"keywrap","keywrapparams":{"ec":null,"optsdata":"` + b64("options") + `"},"keyunwrapparams":null}`, ""},
		"other recipients": {`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"pubkeys":["AAAA"],"attestation-agent":[""]},"DecryptConfig":{"Parameters":{}}},"optsdata":"` + b64("options") + `"}}`, ""},
	} {
		p, plbco, err := parseWrapInput([]byte(c.raw))
		if err != nil || string(plbco) != "options" || p.keyID != c.keyID {
			t.Errorf("%s: got %+v, %q, %v, want %q", name, p, plbco, err, c.keyID)
		}
	}
}

func TestParseWrapInputRefuses(t *testing.T) {
	input := func(params, optsdata string) string {
		return `{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":[` + params + `]},"DecryptConfig":null},"optsdata":` + optsdata + `}}`
	}
	options := `"` + b64("options") + `"`
	for name, raw := range map[string]string{
		"operation of unwrap":     strings.Replace(input(`""`, options), "keywrap", "keyunwrap", 1),
		"no options":              input(`""`, `null`),
		"options not in base64":   input(`""`, `"{\"symkey\":\"AAAA\"}"`),
		"two recipients":          input(`"`+b64("keyid=kbs:///a/b/c")+`","`+b64("keyid=kbs:///x/y/z")+`"`, options),
		"parameter not in base64": input(`"keyid=kbs:///a/b/c"`, options),
		"keypath":                 input(`"`+b64("keypath=/etc/shadow")+`"`, options),
		"sample":                  input(`"`+b64("sample=true")+`"`, options),
		"no wrap parameters":      `{"op":"keywrap"}`,
	} {
		if p, _, err := parseWrapInput([]byte(raw)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, p)
		}
	}
}

func FuzzParseUnwrapInput(f *testing.F) {
	f.Add([]byte(`{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":{}},"annotation":"AAAA"}}`))
	f.Add([]byte(`{"op":"keyunwrap","keyunwrapparams":{"annotation":"AA=="}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if packet, err := parseUnwrapInput(raw); err == nil && len(packet) == 0 {
			t.Error("accepted without an annotation")
		}
	})
}

func FuzzParseWrapInput(f *testing.F) {
	f.Add([]byte(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":["a2V5aWQ9a2JzOi8vL2EvYi9j"]},"DecryptConfig":{"Parameters":{}}},"optsdata":"AAAA"},"keyunwrapparams":{"dc":null,"annotation":null}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, plbco, err := parseWrapInput(raw)
		if err == nil && (len(plbco) == 0 || p.keyID != "" && CheckKeyID(p.keyID) != nil) {
			t.Errorf("accepted as %+v, %q", p, plbco)
		}
	})
}

// The output is an array of numbers: Rust clients read nothing else.
func TestEncodeOutput(t *testing.T) {
	for in, want := range map[string]string{
		"":             `{"keyunwrapresults":{"optsdata":[]}}`,
		"\x00\x09\xff": `{"keyunwrapresults":{"optsdata":[0,9,255]}}`,
	} {
		if got := string(encodeUnwrapOutput([]byte(in))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := string(encodeWrapOutput([]byte("{}"))), `{"keywrapresults":{"annotation":[123,125]}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Go clients decode it into a []byte.
	var out struct {
		KeyUnwrapResults struct {
			OptsData []byte `json:"optsdata"`
		} `json:"keyunwrapresults"`
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	raw := encodeUnwrapOutput(all)
	if err := json.Unmarshal(raw, &out); err != nil || !bytes.Equal(out.KeyUnwrapResults.OptsData, all) {
		t.Errorf("Go reads %x, %v", out.KeyUnwrapResults.OptsData, err)
	}
	if cap(raw) > len(`{"keyunwrapresults":{"optsdata":`)+1+4*256+len(`]}}`) {
		t.Error(fmt.Sprint("the buffer grew: a copy of the key stays behind, cap ", cap(raw)))
	}
}
