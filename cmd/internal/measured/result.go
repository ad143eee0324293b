// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxSize bounds a result file in bytes; one with MaxEntries values is below it.
	MaxSize = 4 << 20

	// MaxEntries bounds the artifacts and the values of a result, each.
	MaxEntries = 4096

	maxNameSize = 256
)

// Kinds of results.
const (
	SNP = "snp"
	TPM = "tpm"
	TDX = "tdx"
)

// Result says what guests launched with certain artifacts will report.
type Result struct {
	// Kind is SNP, TPM or TDX.
	Kind string `json:"kind"`

	// Inputs are the artifacts and settings, in the order of the command's help.
	Inputs []Input `json:"inputs"`

	// Values are what is expected.
	Values []Value `json:"values"`
}

// Input is one artifact, or one setting.
type Input struct {
	// Name is the role, as "firmware" or "append".
	Name string `json:"name"`

	// Size and SHA256 identify a file: its bytes and their hash, lower-case hex.
	Size   int64  `json:"size,omitzero"`
	SHA256 string `json:"sha256,omitzero"`

	// Text is a setting as it was given. A file has none.
	Text string `json:"text,omitzero"`
}

// Value is one expected value.
type Value struct {
	// Name is unique in its result, as "MRTD" or "PCR 4 sha256".
	Name string `json:"name"`

	// Hex is the value in lower-case hex.
	Hex string `json:"hex"`

	// From names the inputs that have a part in the value.
	From []string `json:"from"`
}

// debugInput is the setting of results that are those of a debug guest.
const debugInput = "debug guest"

// MarkDebug notes that the artifacts are those of a debug guest, in which the host has a
// shell.
func (r *Result) MarkDebug() {
	if !r.Debug() {
		r.Inputs = append(r.Inputs, Setting(debugInput, "the host has a shell"))
	}
}

// Debug reports whether the values are those of a debug guest.
func (r Result) Debug() bool {
	return slices.ContainsFunc(r.Inputs, func(i Input) bool { return i.Name == debugInput })
}

// File describes an artifact.
func File(name string, content []byte) Input {
	sum := sha256.Sum256(content)
	return Input{Name: name, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// Setting describes a setting.
func Setting(name, text string) Input { return Input{Name: name, Text: text} }

// same reports whether nothing changed; the names are equal already.
func (i Input) same(o Input) bool {
	return i.SHA256 == o.SHA256 && i.Text == o.Text && i.Size == o.Size
}

// JSON returns the file's bytes: the same for the same result.
func (r Result) JSON() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encoding %s result: %w", r.Kind, err)
	}
	text, err := json.Marshal(r, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encoding %s result: %w", r.Kind, err)
	}
	return append(text, '\n'), nil
}

// Parse reads a result file of at most MaxSize bytes.
func Parse(text []byte) (Result, error) {
	if len(text) > MaxSize {
		return Result{}, fmt.Errorf("result is %d bytes, at most %d allowed", len(text), MaxSize)
	}
	var r Result
	if err := json.Unmarshal(text, &r, json.RejectUnknownMembers(true)); err != nil {
		return Result{}, fmt.Errorf("parsing result: %w", err)
	}
	if err := r.validate(); err != nil {
		return Result{}, fmt.Errorf("parsing result: %w", err)
	}
	return r, nil
}

func (r *Result) validate() error {
	if r.Kind != SNP && r.Kind != TPM && r.Kind != TDX {
		return fmt.Errorf("kind %q, want %s, %s or %s", r.Kind, SNP, TPM, TDX)
	}
	if len(r.Values) == 0 {
		return errors.New("no values")
	}
	if len(r.Inputs) > MaxEntries || len(r.Values) > MaxEntries {
		return fmt.Errorf("%d inputs and %d values, at most %d allowed", len(r.Inputs), len(r.Values), MaxEntries)
	}
	inputs := make(map[string]bool)
	for _, in := range r.Inputs {
		if err := in.validate(); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
		if inputs[in.Name] {
			return fmt.Errorf("input %q is there twice", in.Name)
		}
		inputs[in.Name] = true
	}
	values := make(map[string]bool)
	for _, v := range r.Values {
		if err := v.validate(inputs); err != nil {
			return fmt.Errorf("value %q: %w", v.Name, err)
		}
		if values[v.Name] {
			return fmt.Errorf("value %q is there twice", v.Name)
		}
		values[v.Name] = true
	}
	return nil
}

func (i Input) validate() error {
	if err := checkName(i.Name); err != nil {
		return err
	}
	if i.SHA256 == "" {
		if i.Size != 0 {
			return errors.New("has a size and no hash")
		}
		return nil
	}
	if i.Size < 0 || i.Text != "" {
		return errors.New("neither a file nor a setting")
	}
	return checkHex(i.SHA256, sha256.Size)
}

func (v Value) validate(inputs map[string]bool) error {
	if err := checkName(v.Name); err != nil {
		return err
	}
	if len(v.From) > MaxEntries {
		return fmt.Errorf("%d inputs, at most %d allowed", len(v.From), MaxEntries)
	}
	for _, name := range v.From {
		if !inputs[name] {
			return fmt.Errorf("comes from input %q, which is not there", name)
		}
	}
	// Registers and digests of SHA-1, SHA-256, SHA-384 and SHA-512.
	return checkHex(v.Hex, 20, 32, 48, 64)
}

func checkName(name string) error {
	if name == "" || len(name) > maxNameSize {
		return fmt.Errorf("name of %d bytes, want 1 to %d", len(name), maxNameSize)
	}
	for _, c := range name {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return errors.New("name has control characters")
		}
	}
	return nil
}

func checkHex(text string, sizes ...int) error {
	raw, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(raw) != text {
		return fmt.Errorf("%q is not lower-case hex", text)
	}
	if !slices.Contains(sizes, len(raw)) {
		return fmt.Errorf("%d bytes, want %v", len(raw), sizes)
	}
	return nil
}
