// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ProtocolVersion is the only KBS attestation protocol version that is spoken.
const ProtocolVersion = "0.4.0"

// Size caps of the small KBS bodies. Real ones are a few hundred bytes; tokens of
// verbose verifiers reach some tens of kilobytes.
const (
	MaxRequestSize   = 16 << 10
	MaxChallengeSize = 16 << 10
	MaxTokenSize     = 256 << 10
	MaxErrorSize     = 16 << 10
)

// maxErrorDetail bounds the text of a peer that reaches our errors and logs.
const maxErrorDetail = 256

// Request opens a session (POST /auth).
type Request struct {
	TEE    TEE
	Hashes []HashAlgorithm // offered, in order; nil when the peer offered no list
}

// VersionError says that a peer speaks another protocol version.
type VersionError struct {
	Got string // at most 64 bytes, escaped
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("KBS protocol version is %s, want %q", e.Got, ProtocolVersion)
}

// Encode returns the wire form.
func (q Request) Encode() []byte {
	names := make([]string, len(q.Hashes))
	for i, h := range q.Hashes {
		names[i] = `"` + string(h) + `"`
	}
	return fmt.Appendf(nil, `{"version":"%s","tee":"%s","extra-params":{"supported-hash-algorithms":[%s]}}`,
		ProtocolVersion, q.TEE, strings.Join(names, ","))
}

// ParseRequest reads the body of POST /auth. Another version is a *VersionError.
// extra-params is open by the protocol: it may be absent, a string or an object of
// which only the list of hashes counts. Hashes unknown here are left out; a list
// without any known one is refused.
func ParseRequest(raw []byte) (Request, error) {
	r := readObject("KBS request", raw, MaxRequestSize)
	version, name := r.text("version"), r.text("tee")
	extra, hasExtra := r.takeOptional("extra-params")
	if r.err != nil {
		return Request{}, r.err
	}
	if version != ProtocolVersion {
		return Request{}, &VersionError{Got: quote(version)}
	}
	if err := r.done(); err != nil {
		return Request{}, err
	}
	tee, err := ParseTEE(name)
	if err != nil {
		return Request{}, fmt.Errorf("parsing KBS request: %w", err)
	}
	q := Request{TEE: tee}
	if hasExtra && extra.Kind() == '{' {
		q.Hashes, err = offeredHashes(extra)
	} else if hasExtra && extra.Kind() != '"' {
		err = errors.New("member \"extra-params\": neither a string nor an object")
	}
	if err != nil {
		return Request{}, fmt.Errorf("parsing KBS request: %w", err)
	}
	return q, nil
}

func offeredHashes(extra jsontext.Value) ([]HashAlgorithm, error) {
	const member = "supported-hash-algorithms"
	r := readObject("extra-params", extra, len(extra))
	list, ok := r.takeOptional(member)
	if r.err != nil || !ok {
		return nil, r.err
	}
	var names []string
	if err := json.Unmarshal(list, &names); err != nil {
		return nil, fmt.Errorf("member %q: not a list of strings", member)
	}
	var hashes []HashAlgorithm
	for _, name := range names {
		if h, err := ParseHashAlgorithm(name); err == nil {
			hashes = append(hashes, h)
		}
	}
	if len(hashes) == 0 {
		return nil, fmt.Errorf("member %q: no hash algorithm in common", member)
	}
	return hashes, nil
}

// Challenge answers a Request.
type Challenge struct {
	Nonce string        // opaque text, at most MaxNonceSize bytes
	Hash  HashAlgorithm // DefaultHash when the server selected none
}

// Encode returns the wire form; the hash is named unless it is the default.
func (c Challenge) Encode() ([]byte, error) {
	out, err := appendText([]byte(`{"nonce":`), c.Nonce)
	if err != nil {
		return nil, fmt.Errorf("encoding challenge: %w", err)
	}
	if c.Hash == DefaultHash {
		return append(out, `,"extra-params":""}`...), nil
	}
	return fmt.Appendf(out, `,"extra-params":{"selected-hash-algorithm":"%s"}}`, c.Hash), nil
}

// ParseChallenge reads the answer of POST /auth. A selected hash that is not a known
// name is refused, never replaced by the default.
func ParseChallenge(raw []byte) (Challenge, error) {
	r := readObject("challenge", raw, MaxChallengeSize)
	nonce := r.text("nonce")
	extra, hasExtra := r.takeOptional("extra-params")
	if err := r.done(); err != nil {
		return Challenge{}, err
	}
	if nonce == "" || len(nonce) > MaxNonceSize {
		return Challenge{}, fmt.Errorf("parsing challenge: nonce is %d bytes, want 1 to %d", len(nonce), MaxNonceSize)
	}
	hash := DefaultHash
	if hasExtra {
		var err error
		if hash, err = selectedHash(extra); err != nil {
			return Challenge{}, fmt.Errorf("parsing challenge: %w", err)
		}
	}
	return Challenge{Nonce: nonce, Hash: hash}, nil
}

// selectedHash reads extra-params: the empty string or an object, in which members
// other than the hash are parameters of other TEEs.
func selectedHash(extra jsontext.Value) (HashAlgorithm, error) {
	if extra.Kind() == '"' {
		if s, err := textOf(extra); err != nil || s != "" {
			return "", errors.New(`member "extra-params": a string that is not empty`)
		}
		return DefaultHash, nil
	}
	r := readObject("extra-params", extra, len(extra))
	if _, ok := r.members["selected-hash-algorithm"]; !ok && r.err == nil {
		return DefaultHash, nil
	}
	name := r.text("selected-hash-algorithm")
	if r.err != nil {
		return "", r.err
	}
	return parseSelectedHash(name)
}

// EncodeToken returns the answer of POST /attest around a compact JWT.
func EncodeToken(jwt []byte) ([]byte, error) {
	out, err := appendText([]byte(`{"token":`), string(jwt))
	if err != nil {
		return nil, fmt.Errorf("encoding token response: %w", err)
	}
	return append(out, '}'), nil
}

// ParseToken reads the answer of POST /attest and returns the JWT: three non-empty
// base64url parts, so that it is safe in a header. Its signature is not checked.
func ParseToken(raw []byte) ([]byte, error) {
	r := readObject("token response", raw, MaxTokenSize)
	token := r.text("token")
	if err := r.done(); err != nil {
		return nil, err
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("parsing token response: JWT has %d parts, want 3", len(parts))
	}
	for i, part := range parts {
		if b, err := decodeB64URL(part); err != nil || len(b) == 0 {
			return nil, fmt.Errorf("parsing token response: JWT part %d is empty or not canonical base64url", i+1)
		}
	}
	return []byte(token), nil
}

// errorTypePrefix is how Trustee spells the kind of an error.
const errorTypePrefix = "https://github.com/confidential-containers/kbs/errors/"

// ErrorInformation is the body of a KBS answer that is not 200.
type ErrorInformation struct {
	Variant string // "PolicyDeny", "TokenNotFound", …
	Detail  string
}

// Encode returns the wire form.
func (e ErrorInformation) Encode() ([]byte, error) {
	out, err := appendText([]byte(`{"type":`), errorTypePrefix+e.Variant)
	if err == nil {
		out, err = appendText(append(out, `,"detail":`...), e.Detail)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding error information: %w", err)
	}
	return append(out, '}'), nil
}

// ParseErrorInformation reads an error body. Members it does not know are ignored,
// since a server may say more. Both fields come back short and free of control
// characters, fit for an error or a log line.
func ParseErrorInformation(raw []byte) (ErrorInformation, error) {
	r := readObject("error information", raw, MaxErrorSize)
	kind, detail := r.text("type"), r.text("detail")
	if r.err != nil {
		return ErrorInformation{}, r.err
	}
	variant := strings.TrimPrefix(kind, errorTypePrefix)
	return ErrorInformation{Variant: clean(variant), Detail: clean(detail)}, nil
}

// clean replaces everything that could move a terminal or forge a log line, and cuts
// the text between runes.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, s)
	if len(s) <= maxErrorDetail {
		return s
	}
	end := maxErrorDetail
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
