// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
)

func newMeasureDiff(s streams) *cobra.Command {
	var asJSON bool
	var keyFile string
	c := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say what differs between two results of measure, or two releases, and why",
		Long: `Compare two files that measure --json wrote, or with --key two that measure bundle
wrote: which values differ, and which of the artifacts and settings that they are
computed from. It ends with 0 whether or not
there is a difference; with --json two empty lists say that there is none.`,
		Args: exactly("BEFORE", "AFTER"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile != "" {
				return diffBundles(s, args, keyFile, asJSON)
			}
			before, err := readResult(args[0])
			if err != nil {
				return err
			}
			after, err := readResult(args[1])
			if err != nil {
				return err
			}
			d, err := measured.Diff(before, after)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, d)
			}
			return printDifference(s.out, d)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "PEM `FILE` with the public key that both bundles are signed with")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func readResult(name string) (measured.Result, error) {
	text, err := readFile(name, measured.MaxSize)
	if err != nil {
		return measured.Result{}, err
	}
	r, err := measured.Parse(text)
	if err != nil {
		return measured.Result{}, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func printDifference(w io.Writer, d measured.Difference) error {
	if d.Same() {
		_, err := fmt.Fprintln(w, "no difference")
		return err
	}
	var b strings.Builder
	shown := make(map[string]bool)
	for _, v := range d.Values {
		fmt.Fprintf(&b, "%s\n  before  %s\n  after   %s\n", v.Name, orNone(v.Before), orNone(v.After))
		for _, c := range v.Causes {
			fmt.Fprintf(&b, "  because %s\n", describe(c))
			shown[c.Name] = true
		}
		if len(v.Causes) == 0 && v.Before != "" && v.After != "" {
			b.WriteString("  because of nothing that the files name: they were computed in different ways, or one was altered\n")
		}
	}
	for _, c := range d.Inputs {
		if !shown[c.Name] {
			fmt.Fprintf(&b, "no value shows that %s\n", describe(c))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// describe says how an input differs. Settings are quoted: they come from a file.
func describe(c measured.InputChange) string {
	switch {
	case c.Before == nil:
		return fmt.Sprintf("%s is new: %s", c.Name, content(*c.After))
	case c.After == nil:
		return fmt.Sprintf("%s is gone: %s", c.Name, content(*c.Before))
	}
	return fmt.Sprintf("%s changed: %s to %s", c.Name, content(*c.Before), content(*c.After))
}

func content(i measured.Input) string {
	if i.SHA256 == "" {
		return fmt.Sprintf("%q", i.Text)
	}
	return fmt.Sprintf("sha256:%s (%d bytes)", i.SHA256, i.Size)
}
