// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	_ "embed"
	"fmt"
)

//go:embed builtin.rego
var builtinText []byte

// BuiltIn loads the policy that applies where the tenant brings none (docs/security.md, rule 15). What an image's
// container runs is not judged by it: that is compared with the verified image's config, which this package is not
// given.
//
// strict refuses every CopyFile. ReadStream is allowed even so: the guest answers it with a line that says that there
// are no logs (pod.Config.NoLogs).
func BuiltIn(strict bool) (*Policy, error) {
	text := builtinText
	if strict {
		text = bytes.Replace(text, []byte(strictOff), []byte(strictOn), 1)
		if !bytes.Contains(text, []byte(strictOn)) {
			return nil, fmt.Errorf("built-in policy: no line %q to replace", strictOff)
		}
	}
	p, err := Load(text)
	if err != nil {
		return nil, fmt.Errorf("built-in policy: %w", err)
	}
	return p, nil
}

// The line of builtin.rego that makes it the strict one.
const (
	strictOff = "\nstrict := false\n"
	strictOn  = "\nstrict := true\n"
)
