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
	var with beside
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
				if with != (beside{}) {
					return usagef("--policy and --values are for a registration")
				}
				return unregister(c.Context(), s, f, args[0])
			}
			if (with.values != "") != (with.valuesKey != "") {
				return usagef("--values and --values-key go together")
			}
			return register(c.Context(), s, f, args[0], with)
		},
	}
	f.add(c)
	c.Flags().StringVar(&with.policy, "policy", "", "file with the workload's resource policy, in place of the key policy")
	c.Flags().StringVar(&with.values, "values", "", "file with the release's signed reference values, of casemate-build measure bundle, for the TEEs of the registration")
	c.Flags().StringVar(&with.valuesKey, "values-key", "", "PEM file with the public key that the reference values are signed with")
	c.Flags().BoolVar(&remove, "remove", false, "remove the workload ID and its secrets")
	return c
}

// beside are the files that a registration is completed from.
type beside struct{ policy, values, valuesKey string }

func register(ctx context.Context, s streams, f ownerFlags, file string, with beside) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	registration, err := readRegistration(file, with)
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

func readRegistration(file string, with beside) (owner.Registration, error) {
	text, err := readFile(file, owner.MaxRegistrationSize)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading registration: %w", err)
	}
	var rego []byte
	if with.policy != "" {
		if rego, err = readFile(with.policy, owner.MaxPolicySize); err != nil {
			return owner.Registration{}, fmt.Errorf("reading policy: %w", err)
		}
	}
	if with.values == "" {
		return owner.ParseTOMLWithPolicy(text, string(rego))
	}
	bundle, err := readValues(with.values, with.valuesKey)
	if err != nil {
		return owner.Registration{}, err
	}
	return owner.ParseTOMLWith(text, string(rego), func(r *owner.Registration) error { return addValues(r, bundle) })
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
