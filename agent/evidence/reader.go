// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxQuoted bounds how much of a hostile string an error repeats.
const maxQuoted = 64

// quote renders hostile text for an error: escaped and short.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// reader takes a JSON object apart member by member. The first error sticks and
// later calls return zero values, so a parser reads like the list of its fields.
// Every member must be taken before done: what is left over is unknown.
type reader struct {
	what    string
	members map[string]jsontext.Value
	err     error
}

// readObject decodes the members of one JSON object of at most limit bytes. Names
// match exactly; duplicates and invalid UTF-8 anywhere inside are refused here.
func readObject(what string, raw []byte, limit int) *reader {
	r := &reader{what: what}
	if len(raw) > limit {
		r.err = fmt.Errorf("parsing %s: %d bytes, at most %d allowed", what, len(raw), limit)
		return r
	}
	if v := jsontext.Value(raw); v.Kind() != '{' {
		r.err = fmt.Errorf("parsing %s: not a JSON object", what)
		return r
	}
	if err := json.Unmarshal(raw, &r.members); err != nil {
		r.err = fmt.Errorf("parsing %s: %s", what, syntaxReason(err))
	}
	return r
}

// syntaxReason keeps what an error says about the syntax and drops what it quotes:
// the library's text repeats hostile names of any length.
func syntaxReason(err error) string {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return "a member name occurs twice"
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("malformed JSON at byte %d", syntax.ByteOffset)
	}
	return "malformed JSON"
}

func (r *reader) fail(member, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("parsing %s: member %q: %s", r.what, member, fmt.Sprintf(format, args...))
	}
}

// wrap records an error of a nested parser, which names its own place.
func (r *reader) wrap(member string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("parsing %s: member %q: %w", r.what, member, err)
	}
}

// take removes a required member. Absent is an error: nothing has a default.
func (r *reader) take(member string) jsontext.Value {
	v, ok := r.takeOptional(member)
	if !ok && r.err == nil {
		r.fail(member, "missing")
	}
	return v
}

// takeOptional removes a member that may be absent. JSON null counts as absent.
func (r *reader) takeOptional(member string) (jsontext.Value, bool) {
	if r.err != nil {
		return nil, false
	}
	v, ok := r.members[member]
	delete(r.members, member)
	if !ok || v.Kind() == 'n' {
		return nil, false
	}
	return v, true
}

func (r *reader) text(member string) string {
	v := r.take(member)
	if r.err != nil {
		return ""
	}
	s, err := textOf(v)
	if err != nil {
		r.fail(member, "%v", err)
	}
	return s
}

// object takes a nested object; the caller ends it with r.wrap(member, inner.done()).
func (r *reader) object(member string) *reader {
	v := r.take(member)
	if r.err != nil {
		return &reader{what: member, err: r.err}
	}
	return readObject(member, v, len(v))
}

func (r *reader) uint(member string, bits int) uint64 {
	v := r.take(member)
	if r.err != nil {
		return 0
	}
	return r.uintOf(member, v, bits)
}

// uintOf accepts decimal digits only: 1.0, 1e2 and -0 are other spellings of numbers
// that some decoders round.
func (r *reader) uintOf(member string, v jsontext.Value, bits int) uint64 {
	if v.Kind() != '0' {
		r.fail(member, "not a number")
		return 0
	}
	n, err := strconv.ParseUint(string(v), 10, bits)
	if err != nil {
		r.fail(member, "%s is not an unsigned %d-bit integer", quote(string(v)), bits)
	}
	return n
}

// octets takes an array of exactly size numbers from 0 to 255.
func (r *reader) octets(member string, size int) []byte {
	v := r.take(member)
	if r.err != nil {
		return nil
	}
	b, err := octetsOf(v, size)
	if err == nil && len(b) != size {
		err = fmt.Errorf("got %d numbers, want %d", len(b), size)
	}
	if err != nil {
		r.fail(member, "%v", err)
		return nil
	}
	return b
}

// done returns the first error, or one that names a member nobody took.
func (r *reader) done() error {
	if r.err != nil {
		return r.err
	}
	if len(r.members) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(r.members))
	return fmt.Errorf("parsing %s: unknown member %s", r.what, quote(names[0]))
}

// textOf decodes a JSON string.
func textOf(v jsontext.Value) (string, error) {
	if v.Kind() != '"' {
		return "", errors.New("not a string")
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		return "", errors.New(syntaxReason(err))
	}
	return s, nil
}

// octetsOf decodes a JSON array of at most limit numbers 0 to 255. v is valid JSON
// already, so only the shape of the elements is left to check.
func octetsOf(v jsontext.Value, limit int) ([]byte, error) {
	if v.Kind() != '[' {
		return nil, errors.New("not an array of numbers")
	}
	inner := strings.Trim(string(v), " \t\r\n")
	inner = strings.Trim(inner[1:len(inner)-1], " \t\r\n")
	if inner == "" {
		return nil, nil
	}
	var out []byte
	for element := range strings.SplitSeq(inner, ",") {
		n, err := strconv.ParseUint(strings.Trim(element, " \t\r\n"), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("element %d is not a number from 0 to 255", len(out))
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		out = append(out, byte(n))
	}
	return out, nil
}

// appendOctets writes b as a JSON array of numbers.
func appendOctets(dst, b []byte) []byte {
	dst = append(dst, '[')
	for i, c := range b {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(c), 10)
	}
	return append(dst, ']')
}

// appendText writes s with the minimal escapes of RFC 8785 section 3.2.2.2: '<', '>',
// '&', U+2028 and U+2029 stay as they are, unlike in encoding/json. Text that is not
// UTF-8 has no JSON form and is an error.
func appendText(dst []byte, s string) ([]byte, error) {
	out, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		return dst, errors.New("text is not valid UTF-8")
	}
	return out, nil
}
