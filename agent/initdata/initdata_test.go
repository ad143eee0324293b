// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

const sample = `# written by an owner
algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs.kbs]
url = "https://kbs.example"
'''
"policy.rego" = "package agent_policy"
`

func mustParse(t testing.TB, doc string) *InitData {
	t.Helper()
	d, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParse(t *testing.T) {
	d := mustParse(t, sample)
	want := map[string]string{
		"aa.toml":     "[token_configs.kbs]\nurl = \"https://kbs.example\"\n",
		"policy.rego": "package agent_policy",
	}
	if !maps.Equal(d.Data, want) || d.Algorithm != evidence.SHA384 || string(d.Raw()) != sample {
		t.Errorf("got %+v", d)
	}
	sum := sha512.Sum384([]byte(sample))
	if !bytes.Equal(d.Digest(), sum[:]) {
		t.Errorf("digest is not over the verbatim bytes: %x", d.Digest())
	}
	for _, doc := range []string{
		"version=\"0.1.0\"\nalgorithm='sha256'\ndata={}\n",
		"version=\"0.1.0\"\nalgorithm='sha256'\ndata={\"a.b\"='x', c=\"\"}\n",
		"version=\"0.1.0\"\nalgorithm='sha256'\ndata.\"a.b.c.d.e.f\"='x'\n",
		"version=\"0.1.0\"\r\nalgorithm='sha512'\r\n[data]\r\n",
		"version=\"0.1.0\"\nalgorithm='sha256'\n[data]\na='''\n[[[[ {{{{ ...... '' ' #'''' # [[[[[\nb=\"\"\"\n\\\" \\\\ [[[[\"\"\"\"\"\n",
	} {
		mustParse(t, doc)
	}
}

func TestParseKeepsItsOwnBytes(t *testing.T) {
	raw := []byte(sample)
	d, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	clear(d.Raw())
	clear(d.Digest())
	if string(d.Raw()) != sample || bytes.Equal(d.Digest(), make([]byte, 48)) {
		t.Error("a caller changed the parsed document")
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n"
	for _, tc := range []struct{ name, doc, want string }{
		{"empty", "", `"version" is missing`},
		{"no version", "algorithm='sha384'\n[data]\n", `"version" is missing`},
		{"no algorithm", "version='0.1.0'\n[data]\n", `"algorithm" is missing`},
		{"no data", head, `"data" is missing`},
		{"newer version", strings.Replace(sample, "0.1.0", "0.2.0", 1), `version is "0.2.0"`},
		{"version prefix", strings.Replace(sample, "0.1.0", "0.1.0 ", 1), "version is"},
		{"version a number", strings.Replace(sample, `"0.1.0"`, "0.1", 1), `"version" is missing or not a string`},
		{"sha-384", strings.Replace(sample, "sha384", "sha-384", 1), "unsupported hash algorithm"},
		{"SHA384", strings.Replace(sample, "sha384", "SHA384", 1), "unsupported hash algorithm"},
		{"sm3", strings.Replace(sample, "sha384", "sm3", 1), "unsupported hash algorithm"},
		{"key in another case", strings.Replace(sample, "algorithm", "Algorithm", 1), `unknown key "Algorithm"`},
		{"key in two cases", "Version = '0.2.0'\n" + sample, `unknown key "Version"`},
		{"repeated key", "version = '0.1.0'\n" + sample, "not TOML at line 4"},
		{"repeated file", sample + "\"policy.rego\" = ''\n", "not TOML at line"},
		{"repeated table", sample + "[data]\n", "not TOML at line"},
		{"unknown key", "policy = ''\n" + sample, `unknown key "policy"`},
		{"unknown table", sample + "[extra]\n", `unknown key "extra"`},
		{"file a number", sample + "x = 1\n", `data key "x" is not a string`},
		{"file a table", sample + "[data.x]\ny=''\n", `data key "x" is not a string`},
		{"file a list", sample + "x = ['a']\n", `data key "x" is not a string`},
		{"data a list of tables", head + "[[data]]\nx=''\n", "nested too deeply at line 3"},
		{"data a string", head + "data = ''\n", `"data" is missing or not a table`},
		{"not UTF-8", head + "[data]\nx='\xff'\n", "not TOML"},
		{"unterminated", head + "[data]\nx='''\n", "unterminated string at line 4"},
		{"line break in a string", head + "[data]\nx='\n'\n", "unterminated string at line 4"},
		{"binary", "\x00\x01\x02", "not TOML"},
		{"gzip", "\x1f\x8b\x08\x00", "not TOML"},
		{"too big", sample + strings.Repeat("#", MaxSize), "at most 1048576"},
	} {
		if d, err := Parse([]byte(tc.doc)); err == nil {
			t.Errorf("%s: accepted as %+v", tc.name, d)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}

// Documents under the cap whose nesting would keep the TOML library busy for minutes.
func TestParseIsQuickOnHostileDocuments(t *testing.T) {
	const n = MaxSize / 8
	for name, doc := range map[string]string{
		"inline tables":  "a=" + strings.Repeat("{a=", n) + "1" + strings.Repeat("}", n),
		"lists":          "a=" + strings.Repeat("[", n),
		"dotted key":     strings.Repeat("a.", n) + "a=1",
		"dotted table":   "[" + strings.Repeat("a.", n) + "a]",
		"negative depth": strings.Repeat("]", n),
		"escaped quote":  `a="\"` + strings.Repeat("{a=", n) + `"`,
		"five quotes":    `a="""x"""""` + "\nb=" + strings.Repeat("{a=", n),
		"six quotes":     `a="""x""""""` + "\nb=" + strings.Repeat("{a=", n),
		"many tables":    strings.Repeat("[[a]]\n", n),
		"one-off tables": distinct("[t%d]\n"),
		"one-off files":  sample + distinct("k%d=1\n"),
		"many files":     sample + strings.Repeat("a=''\n", n),
		"long key":       strings.Repeat("a", MaxSize-10) + "=1",
	} {
		start := time.Now()
		if d, err := Parse([]byte(doc)); err == nil {
			t.Errorf("%s: accepted as %+v", name, d)
		}
		if took := time.Since(start); took > 20*time.Second { // minutes without the check
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// distinct repeats a line with a running number up to half of MaxSize.
func distinct(format string) string {
	var b strings.Builder
	for i := 0; b.Len() < MaxSize/2; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		algorithm  string
		host, conf int // digest bytes that fit into the field
	}{{"sha256", 32, 32}, {"sha384", 32, 48}, {"sha512", 32, 48}} {
		d := mustParse(t, strings.Replace(sample, "sha384", tc.algorithm, 1))
		host, conf := d.HostData(), d.MRConfigID()
		if !bytes.Equal(host[:], d.Digest()[:tc.host]) || !bytes.Equal(conf[:tc.conf], d.Digest()[:tc.conf]) ||
			len(bytes.Trim(conf[tc.conf:], "\x00")) != 0 {
			t.Errorf("%s: HOST_DATA %x, MRCONFIGID %x, digest %x", tc.algorithm, host, conf, d.Digest())
		}
		for _, bound := range [][]byte{host[:], conf[:]} {
			if err := d.Match(bound); err != nil {
				t.Errorf("%s: %v", tc.algorithm, err)
			}
			for i := range bound {
				flipped := bytes.Clone(bound)
				flipped[i] ^= 1
				if d.Match(flipped) == nil {
					t.Fatalf("%s: byte %d of %d is not compared", tc.algorithm, i, len(bound))
				}
			}
		}
	}
}

func TestMatchRefuses(t *testing.T) {
	d := mustParse(t, sample)
	for _, size := range []int{32, 48} {
		if err := d.Match(make([]byte, size)); !errors.Is(err, ErrUnbound) {
			t.Errorf("%d zero bytes: %v, want ErrUnbound", size, err)
		}
	}
	for _, size := range []int{0, 1, 31, 33, 47, 64} {
		bound := make([]byte, size)
		copy(bound, d.Digest())
		if err := d.Match(bound); err == nil || !strings.Contains(err.Error(), "want 32 or 48") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	other := sha256.Sum256([]byte("another document"))
	if err := d.Match(other[:]); err == nil || errors.Is(err, ErrUnbound) {
		t.Errorf("another document: %v", err)
	}
	if IsZero(nil) || IsZero([]byte{0, 1}) || !IsZero(make([]byte, 32)) {
		t.Error("IsZero is wrong")
	}
}

func TestEncode(t *testing.T) {
	data := map[string]string{
		"casemate.toml": "workload = \"w\"\n", "policy.rego": "package p\n\n# it's ''quoted''\n",
		"quotes": "a'''b\n", "ends": "x\n'", "crlf": "a\r\nb", "cr": "a\rb", "tab": "\ta\n", "nul": "\x00\x7f\n",
		"unicode": "é 𝄞\n", "empty": "", "back\\slash \"key\"": "\\", "spaces ": " \n ", "": "no name", "nl\nkey": "v",
	}
	for _, h := range evidence.SupportedHashes() {
		raw, err := Encode(h, data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Encode(h, maps.Clone(data))
		if err != nil || !bytes.Equal(raw, again) {
			t.Errorf("%s: not deterministic (%v)", h, err)
		}
		d := mustParse(t, string(raw))
		if !maps.Equal(d.Data, data) || d.Algorithm != h {
			t.Errorf("%s: got %q", h, d.Data)
		}
	}
	const want = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"a.toml\" = '''\nx = 1\n'''\n\"b\" = \"y\"\n"
	if raw, err := Encode(evidence.SHA256, map[string]string{"b": "y", "a.toml": "x = 1\n"}); err != nil || string(raw) != want {
		t.Errorf("got %q, want %q (%v)", raw, want, err)
	}
	for name, err := range map[string]error{
		"algorithm": second(Encode("sm3", nil)),
		"UTF-8":     second(Encode(evidence.SHA256, map[string]string{"a": "\xff"})),
		"size":      second(Encode(evidence.SHA256, map[string]string{"a": strings.Repeat("a", MaxSize)})),
	} {
		if err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func second(_ []byte, err error) error { return err }

// FuzzParse: a document is refused, or it matches its own fields and survives Encode.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("version=\"0.1.0\"\nalgorithm='sha256'\ndata={\"a.b\"='x'}\n"))
	f.Add([]byte("a=\"\"\"\\\"\"\"\"\"\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Parse(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Raw(), raw) {
			t.Fatal("bytes changed")
		}
		bound := d.HostData()
		if err := d.Match(bound[:]); err != nil {
			t.Fatal(err)
		}
		again, err := Encode(d.Algorithm, d.Data)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Parse(again); err != nil || !maps.Equal(back.Data, d.Data) {
			t.Fatal("second document differs", err)
		}
	})
}
