// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes: what was asked for was done; it was refused or failed; it was not
// understood.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are where a command prints: results on out, all else on err.
type streams struct {
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
	fmt.Fprintf(s.err, "%s: %s\n", command.CommandPath(), printable(err.Error()))
	if errors.Is(err, errUsage) {
		fmt.Fprintf(s.err, "usage: %s\nMore: %s --help\n", command.UseLine(), command.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// printable keeps what a registry answered from steering the terminal: control
// characters become spaces.
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:               "casemate-build COMMAND",
		Short:             "Encrypt, sign and measure images and write initdata for confidential VMs",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		// Set, so that unknown commands come here.
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("want a command")
			}
			return usagef("unknown command %q", args[0])
		},
	}
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	root.AddCommand(
		newEncrypt(s), newLayers(s), newSign(s), newKeygen(s), newSeal(s), newInitData(s), newAgentPolicy(s), newKeyProvider(s),
		newVerity(s), newDisk(s), newRootfs(s), newMeasure(s), newVersion(s),
	)
	return root
}

// exactly says that a command takes these arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%d arguments, want %d: %v", len(args), len(names), names)
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

// isTerminal reports whether a person watches w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
