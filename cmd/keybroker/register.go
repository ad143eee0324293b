// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
)

func newRegister(s streams) *cobra.Command {
	var f ownerFlags
	var policyFile string
	var remove bool
	c := &cobra.Command{
		Use:   "register FILE | register --remove ID",
		Short: "Register a workload, or remove it with all its secrets",
		Long: `Register a workload from a TOML file: its id, the TEEs it runs on, the accepted
digests of its initdata and launch measurements, and its own resource policy if it
has one. A registration replaces an earlier one of its id and counts at once: guests
that no longer match are refused at their next request.`,
		Args: exactly("FILE or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if remove {
				if policyFile != "" {
					return usagef("--policy is for a registration")
				}
				return unregister(c.Context(), s, f, args[0])
			}
			return register(c.Context(), s, f, args[0], policyFile)
		},
	}
	f.add(c)
	c.Flags().StringVar(&policyFile, "policy", "", "file with the workload's resource policy, in place of the key policy")
	c.Flags().BoolVar(&remove, "remove", false, "remove the workload ID and its secrets")
	return c
}

func register(ctx context.Context, s streams, f ownerFlags, file, policyFile string) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	registration, err := readRegistration(file, policyFile)
	if err != nil {
		return err
	}
	created, err := client.Register(ctx, registration)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(s.out, owner.Registered{ID: registration.ID, Created: created})
	}
	how := "replaced"
	if created {
		how = "new"
	}
	fmt.Fprintf(s.out, "registered workload %s (%s)\n", registration.ID, how)
	if registration.TestRoots {
		fmt.Fprintf(s.out, "test_roots = true: this workload trusts evidence that proves nothing about hardware\n")
	}
	if registration.Debug {
		fmt.Fprintf(s.out, "debug = true: this workload's secrets go to guests in which the host has a shell\n")
	}
	return nil
}

func readRegistration(file, policyFile string) (owner.Registration, error) {
	text, err := readFile(file, owner.MaxRegistrationSize)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading registration: %w", err)
	}
	if policyFile == "" {
		return owner.ParseTOML(text)
	}
	rego, err := readFile(policyFile, owner.MaxPolicySize)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading policy: %w", err)
	}
	return owner.ParseTOMLWithPolicy(text, string(rego))
}

func unregister(ctx context.Context, s streams, f ownerFlags, id string) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	if err := client.Unregister(ctx, id); err != nil {
		return err
	}
	if f.json {
		return printJSON(s.out, struct {
			Removed string `json:"removed"`
		}{id})
	}
	fmt.Fprintf(s.out, "removed workload %s and its secrets\n", id)
	return nil
}
