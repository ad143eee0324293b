// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/casemate/casemate/agent/evidence"
)

// Encode writes a document with these files, the same bytes for the same input: the
// digest of the result is what the host launches the guest with. It refuses what
// Parse would refuse and text that is not UTF-8.
func Encode(algorithm evidence.HashAlgorithm, data map[string]string) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "version = %q\nalgorithm = %q\n\n[data]\n", Version, string(algorithm))
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if !utf8.ValidString(name) || !utf8.ValidString(data[name]) {
			return nil, fmt.Errorf("encoding initdata: data key %.64q is not UTF-8", name)
		}
		b.WriteString(basicString(name) + " = " + tomlString(data[name]) + "\n")
	}
	raw := []byte(b.String())
	d, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("encoding initdata: %w", err)
	}
	if !maps.Equal(d.Data, data) {
		return nil, errors.New("encoding initdata: the document does not read back as written")
	}
	return raw, nil
}

// tomlString keeps files readable: several lines become a literal string, where that
// can hold them exactly.
func tomlString(s string) string {
	literal := strings.Contains(s, "\n") && !strings.Contains(s, "'''") && !strings.HasSuffix(s, "'")
	for _, c := range s {
		// TOML takes no other control characters, and readers may turn CR LF into LF.
		if c < ' ' && c != '\n' && c != '\t' || c == 0x7F {
			literal = false
		}
	}
	if literal {
		return "'''\n" + s + "'''" // a line break right after the quotes is not content
	}
	return basicString(s)
}

func basicString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7F:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
