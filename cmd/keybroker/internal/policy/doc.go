// SPDX-License-Identifier: Apache-2.0

// Package policy decides whether a token may have a resource, by the workload's own
// Rego policy or, when it has none, by a built-in one.
//
// Policies are Trustee's: Rego v1, package policy, rule allow; input is the claims of
// the token, data is {"plugin", "resource-path", "query", "workload"}. Everything but
// allow being the boolean true is a denial, and so is an error or running out of time.
//
// It refuses policies in another package, without the rule, over their size cap, and
// those that call anything outside a closed list of pure functions: none that reaches
// the network, the environment, the clock or randomness.
//
// Files: policy.go compiling; evaluate.go deciding; builtins.go the list of functions;
// builtin.rego the built-in policy; cache.go compiled policies.
package policy
