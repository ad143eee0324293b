// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
has one. A registration that leaves the agent or the initdata unproved is refused
unless --accept-unproved names the part. A registration replaces an earlier one of its id and counts at once: guests
that no longer match are refused at their next request.`,
		Args: exactly("FILE or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if remove {
				if !with.empty() {
					return usagef("--policy, --values and --accept-unproved are for a registration")
				}
				return unregister(c.Context(), s, f, args[0])
			}
			return register(c.Context(), s, f, args[0], with)
		},
	}
	f.add(c)
	with.add(c.Flags())
	c.Flags().BoolVar(&remove, "remove", false, "remove the workload ID and its secrets")
	return c
}

// beside is what a registration is completed from.
type beside struct {
	policy, values, valuesKey string
	accept                    []string
}

func (b *beside) add(flags *pflag.FlagSet) {
	flags.StringVar(&b.policy, "policy", "", "file with the workload's resource policy, in place of the key policy")
	flags.StringSliceVar(&b.accept, "accept-unproved", nil, "do without proof of a part: agent, initdata")
	flags.StringVar(&b.values, "values", "", "file with the release's signed reference values, of casemate-build measure bundle, for the TEEs of the registration")
	flags.StringVar(&b.valuesKey, "values-key", "", "PEM file with the public key that the reference values are signed with")
}

func (b beside) empty() bool {
	return b.policy == "" && b.values == "" && b.valuesKey == "" && len(b.accept) == 0
}

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
	for _, gap := range registration.Gaps() {
		fmt.Fprintf(s.out, "accepted without proof: %s (%s)\n", gap.Part, gap.Why)
	}
	return nil
}

func readRegistration(file string, with beside) (owner.Registration, error) {
	if (with.values != "") != (with.valuesKey != "") {
		return owner.Registration{}, usagef("--values and --values-key go together")
	}
	text, err := readFile(file, owner.MaxRegistrationSize)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading registration: %w", err)
	}
	var also owner.Also
	for _, part := range with.accept {
		also.AcceptUnproved = append(also.AcceptUnproved, owner.Part(part))
	}
	if with.policy != "" {
		rego, err := readFile(with.policy, owner.MaxPolicySize)
		if err != nil {
			return owner.Registration{}, fmt.Errorf("reading policy: %w", err)
		}
		also.Policy = string(rego)
	}
	if with.values != "" {
		bundle, err := readValues(with.values, with.valuesKey)
		if err != nil {
			return owner.Registration{}, err
		}
		also.Complete = func(r *owner.Registration) error { return addValues(r, bundle) }
	}
	return owner.ParseTOMLWith(text, also)
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
