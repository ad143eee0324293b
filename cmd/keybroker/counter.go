// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
)

func newCounter(s streams) *cobra.Command {
	return group("counter", "Print and reset the counters of a workload's volumes", newCounterList(s), newCounterReset(s))
}

func newCounterList(s streams) *cobra.Command {
	return resourceCommand("list --workload ID", "Print the last generation of each volume with a counter", exactly(),
		func(ctx context.Context, client *owner.Client, f *resourceFlags, _ []string) error {
			counters, err := client.Counters(ctx, f.workload)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, owner.CounterList{Counters: counters})
			}
			for _, c := range counters {
				line := fmt.Sprintf("%8d  %s", c.Generation, c.Volume)
				if c.Reset {
					line += "  reset"
				}
				fmt.Fprintln(s.out, line)
			}
			return nil
		})
}

func newCounterReset(s streams) *cobra.Command {
	return resourceCommand("reset --workload ID VOLUME", "Let the next guest take whatever its disk says for the last generation, once: for an image that was put back on purpose", exactly("VOLUME"),
		func(ctx context.Context, client *owner.Client, f *resourceFlags, args []string) error {
			if err := client.ResetCounter(ctx, f.workload, args[0]); err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, struct {
					Reset string `json:"reset"`
				}{args[0]})
			}
			fmt.Fprintf(s.out, "volume %s of workload %s: the next guest decides which generation is the last\n", args[0], f.workload)
			return nil
		})
}
