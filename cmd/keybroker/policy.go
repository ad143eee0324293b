// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/policy"
)

func newPolicy(s streams) *cobra.Command {
	return group("policy", "Check a resource policy, or print the one that applies to a workload",
		newPolicyCheck(s), newPolicyShow(s))
}

func newPolicyCheck(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Compile a Rego file as a registration would, without a keybroker",
		Args:  exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := readFile(args[0], owner.MaxPolicySize)
			if err != nil {
				return fmt.Errorf("reading policy: %w", err)
			}
			if len(text) == 0 {
				return fmt.Errorf("policy %s is empty", args[0])
			}
			if _, err := policy.Compile(string(text)); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(s.out, "%s: a resource policy\n", args[0])
			return nil
		},
	}
}

func newPolicyShow(s streams) *cobra.Command {
	var f ownerFlags
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "Print the policy of workload ID, or the built-in one",
		Args:  between(0, "ID"),
		RunE: func(c *cobra.Command, args []string) error {
			text, builtIn := policy.BuiltIn(), true
			if len(args) == 1 {
				var err error
				if text, builtIn, err = policyOf(c.Context(), f, args[0]); err != nil {
					return err
				}
			}
			if f.json {
				return printJSON(s.out, struct {
					BuiltIn bool   `json:"built_in"`
					Policy  string `json:"policy"`
				}{builtIn, text})
			}
			_, err := fmt.Fprint(s.out, text)
			return err
		},
	}
	f.add(c)
	return c
}

func policyOf(ctx context.Context, f ownerFlags, id string) (text string, builtIn bool, err error) {
	client, err := f.client()
	if err != nil {
		return "", false, err
	}
	registration, err := client.Workload(ctx, id)
	if err != nil {
		return "", false, err
	}
	if registration.Policy == "" {
		return policy.BuiltIn(), true, nil
	}
	return registration.Policy, false, nil
}
