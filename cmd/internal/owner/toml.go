// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxRegistrationSize holds full lists and a policy of MaxPolicySize.
const MaxRegistrationSize = 1 << 20

// ParseTOML reads the registration file that an owner writes. Unknown keys, keys in
// another case and repeated keys are errors with their line. The result is valid.
func ParseTOML(text []byte) (Registration, error) {
	return ParseTOMLWithPolicy(text, "")
}

// ParseTOMLWithPolicy is ParseTOML for a registration whose policy is in a file of its
// own. A policy in both places is an error.
func ParseTOMLWithPolicy(text []byte, policy string) (Registration, error) {
	return ParseTOMLWith(text, policy, nil)
}

// ParseTOMLWith is ParseTOMLWithPolicy for a registration that complete, unless nil, adds
// reference values to. policy may be empty.
func ParseTOMLWith(text []byte, policy string, complete func(*Registration) error) (Registration, error) {
	r, err := decodeTOML(text)
	if err != nil {
		return Registration{}, err
	}
	if complete != nil {
		if err := complete(&r); err != nil {
			return Registration{}, err
		}
	}
	if policy != "" && r.Policy != "" {
		return Registration{}, errors.New("registration has a policy, and another was given")
	}
	if policy != "" {
		r.Policy = policy
	}
	if err := r.Validate(); err != nil {
		return Registration{}, err
	}
	return r, nil
}

func decodeTOML(text []byte) (Registration, error) {
	if len(text) > MaxRegistrationSize {
		return Registration{}, fmt.Errorf("registration is %d bytes, at most %d allowed", len(text), MaxRegistrationSize)
	}
	var r Registration
	meta, err := toml.Decode(string(text), &r)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return Registration{}, fmt.Errorf("registration line %d: %s", syntax.Position.Line, syntax.Message)
		}
		return Registration{}, fmt.Errorf("registration: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Registration{}, unknownKey(text, unknown[0])
	}
	// The decoder matches names without regard to case; every name here is lower-case.
	for _, key := range meta.Keys() {
		if key.String() != strings.ToLower(key.String()) {
			return Registration{}, unknownKey(text, key)
		}
	}
	return r, nil
}

// unknownKey finds the line for the reader; the decoder no longer knows it.
func unknownKey(text []byte, key toml.Key) error {
	last := key[len(key)-1]
	for i, line := range strings.Split(string(text), "\n") {
		name, _, ok := strings.Cut(line, "=")
		if !ok {
			name = strings.Trim(strings.TrimSpace(line), "[]")
		}
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if name == last || strings.HasSuffix(name, "."+last) {
			return fmt.Errorf("registration line %d: unknown key %q", i+1, key.String())
		}
	}
	return fmt.Errorf("registration: unknown key %q", key.String())
}
