// SPDX-License-Identifier: Apache-2.0

package policy

import (
	_ "embed"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/casemate/casemate/cmd/internal/owner"
)

//go:embed builtin.rego
var builtinText string

// BuiltIn returns the text of the policy that applies to a workload without its own.
func BuiltIn() string { return builtinText }

const (
	packagePath = "data.policy"
	ruleName    = "allow"
)

// Policy is a compiled policy. It is safe for concurrent use.
type Policy struct {
	compiler *ast.Compiler
}

// Compile compiles a policy; empty text means the built-in one. Errors name the line.
func Compile(text string) (*Policy, error) {
	if text == "" {
		text = BuiltIn()
	}
	if len(text) > owner.MaxPolicySize {
		return nil, fmt.Errorf("policy is %d bytes, at most %d allowed", len(text), owner.MaxPolicySize)
	}
	caps := capabilities()
	module, err := ast.ParseModuleWithOpts("policy", text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: caps})
	if err != nil {
		return nil, located(err)
	}
	if got := module.Package.Path.String(); got != packagePath {
		return nil, fmt.Errorf("policy line %d: %s, want package policy", module.Package.Location.Row, module.Package)
	}
	compiler := ast.NewCompiler().WithCapabilities(caps)
	compiler.Compile(map[string]*ast.Module{"policy": module})
	if compiler.Failed() {
		return nil, located(compiler.Errors)
	}
	rule := ast.MustParseRef(packagePath + "." + ruleName)
	if len(compiler.GetRulesExact(rule)) == 0 {
		return nil, fmt.Errorf("policy has no rule %q: it would deny everything", ruleName)
	}
	return &Policy{compiler: compiler}, nil
}

// located turns the library's first error into one line with its place.
func located(err error) error {
	var list ast.Errors
	if !errors.As(err, &list) || len(list) == 0 {
		return fmt.Errorf("compiling policy: %w", err)
	}
	first := list[0]
	more := ""
	if len(list) > 1 {
		more = fmt.Sprintf(" (and %d more)", len(list)-1)
	}
	if first.Location == nil {
		return fmt.Errorf("compiling policy: %s%s", first.Message, more)
	}
	return fmt.Errorf("policy line %d: %s%s", first.Location.Row, first.Message, more)
}
