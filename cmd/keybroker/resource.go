// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
)

// resourceFlags are those of all commands about secrets.
type resourceFlags struct {
	ownerFlags
	workload string
}

func newResource(s streams) *cobra.Command {
	return group("resource", "Store, remove and list the secrets of a workload",
		newResourceSet(s), newResourceDelete(s), newResourceList(s))
}

// resourceCommand is a command with the flags of resources.
func resourceCommand(use, short string, args cobra.PositionalArgs, do func(context.Context, *owner.Client, *resourceFlags, []string) error) *cobra.Command {
	f := &resourceFlags{}
	c := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			if f.workload == "" {
				return usagef("--workload is required")
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			return do(c.Context(), client, f, args)
		},
	}
	f.add(c)
	c.Flags().StringVar(&f.workload, "workload", "", "id of the workload that the secrets are of (required)")
	return c
}

func newResourceSet(s streams) *cobra.Command {
	once := false
	c := resourceCommand("set --workload ID [--once] REPOSITORY/TYPE/TAG FILE", "Store the bytes of FILE, or of standard input for -, as a secret",
		exactly("REPOSITORY/TYPE/TAG", "FILE"),
		func(ctx context.Context, client *owner.Client, f *resourceFlags, args []string) error {
			value, err := readSecret(s.in, args[1])
			if err != nil {
				return fmt.Errorf("reading secret: %w", err)
			}
			defer clear(value)
			put := client.PutSecret
			if once {
				put = client.PutSecretOnce
			}
			stored, err := put(ctx, f.workload, args[0], value)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, stored)
			}
			fmt.Fprintf(s.out, "stored kbs:///%s of workload %s, %d bytes\n", stored.Path, f.workload, stored.Size)
			if !stored.Registered {
				fmt.Fprintf(s.out, "workload %s is not registered yet: nobody can be given this\n", f.workload)
			}
			return nil
		})
	c.Flags().BoolVar(&once, "once", false, "release it a single time, as leave to make a volume")
	return c
}

func newResourceDelete(s streams) *cobra.Command {
	return resourceCommand("delete --workload ID REPOSITORY/TYPE/TAG", "Remove a secret", exactly("REPOSITORY/TYPE/TAG"),
		func(ctx context.Context, client *owner.Client, f *resourceFlags, args []string) error {
			if err := client.DeleteSecret(ctx, f.workload, args[0]); err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, struct {
					Removed string `json:"removed"`
				}{args[0]})
			}
			fmt.Fprintf(s.out, "removed kbs:///%s of workload %s\n", args[0], f.workload)
			return nil
		})
}

func newResourceList(s streams) *cobra.Command {
	return resourceCommand("list --workload ID", "Print names and sizes of a workload's secrets", exactly(),
		func(ctx context.Context, client *owner.Client, f *resourceFlags, _ []string) error {
			secrets, err := client.Secrets(ctx, f.workload)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, owner.SecretList{Secrets: secrets})
			}
			for _, secret := range secrets {
				line := fmt.Sprintf("%8d  kbs:///%s", secret.Size, secret.Path)
				if secret.Once {
					line += "  once"
				}
				fmt.Fprintln(s.out, line)
			}
			return nil
		})
}

// readSecret takes a secret from a file or from stdin, never from the command line,
// which every process can read.
func readSecret(stdin io.Reader, name string) ([]byte, error) {
	if name != "-" {
		return readFile(name, owner.MaxSecretSize)
	}
	return readAtMost(stdin, "standard input", owner.MaxSecretSize)
}
