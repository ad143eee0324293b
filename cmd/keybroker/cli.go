// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes: what was asked for was done; it was refused or failed; it was not
// understood.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are where a verb reads and prints: results on out, all else on err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// errUsage marks a command line that was not understood.
var errUsage = errors.New("wrong usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(s.err, "%s: %v\n", command.CommandPath(), err)
	if errors.Is(err, errUsage) {
		fmt.Fprintf(s.err, "usage: %s\nMore: %s --help\n", command.UseLine(), command.CommandPath())
		return exitUsage
	}
	return exitFailed
}

func newRoot(s streams) *cobra.Command {
	root := group("keybroker", "Give a workload's secrets to guests that prove to be it",
		newServe(s), newRegister(s), newResource(s), newCounter(s), newPolicy(s), newReferenceValues(s), newCheck(s), newLog(s), newVersion(s))
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions = cobra.CompletionOptions{DisableDefaultCmd: true}
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	return root
}

// group is a command that only has others below it.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   name + " COMMAND",
		Short: short,
		// Set, so that unknown commands come here.
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("want a command")
			}
			return usagef("unknown command %q", args[0])
		},
	}
	c.AddCommand(commands...)
	return c
}

// exactly says that a command takes these arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return between(len(names), names...)
}

// between says that a command takes these arguments, of which only the first few must
// be there.
func between(required int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < required || len(args) > len(names) {
			return usagef("%d arguments, want %v", len(args), names)
		}
		return nil
	}
}

// printJSON writes a result for programs.
func printJSON(w io.Writer, result any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(result)
}
