// SPDX-License-Identifier: Apache-2.0

package policy

import (
	_ "embed"
	"fmt"
)

//go:embed builtin.rego
var builtinText []byte

// BuiltIn loads the policy that applies where the tenant brings none (docs/security.md, rule 15). It starts the
// sandbox's own container and nothing else: an image's container would need the command, environment and user of the
// verified image to compare with, which this package is not given.
func BuiltIn() (*Policy, error) {
	p, err := Load(builtinText)
	if err != nil {
		return nil, fmt.Errorf("built-in policy: %w", err)
	}
	return p, nil
}
