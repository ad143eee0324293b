// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
)

type rootfsOverlay struct {
	streams
	guestFlags // of which program, recipe and files are used
	out, init  string
}

func newRootfsOverlay(s streams) *cobra.Command {
	f := &rootfsOverlay{streams: s}
	c := &cobra.Command{
		Use:   "overlay",
		Short: "Write what kata's osbuilder needs to build its own image with casemate",
		Long: `Write a directory for kata's osbuilder: the agent for AGENT_SOURCE_BIN, files to
copy over its ROOTFS_DIR and the variables for its scripts.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return f.run() },
	}
	c.Flags().StringVar(&f.program, "casemate", "", "`FILE`, the guest's program, statically linked")
	c.Flags().StringVar(&f.recipe, "recipe", "", "`FILE` in place of the built-in recipe")
	c.Flags().StringArrayVar(&f.files, "file", nil, "`GUEST=HOST`, a file to put into the guest, mode 0644; repeatable")
	c.Flags().StringVarP(&f.out, "out", "o", "", "`DIR` to make")
	c.Flags().StringVar(&f.init, "init", string(image.InitAgent), "who is the guest's first process: agent or systemd")
	return c
}

func (f *rootfsOverlay) run() error {
	if f.out == "" {
		return usagef("--out is missing")
	}
	recipe, in, err := f.load()
	if err != nil {
		return err
	}
	t, err := recipe.OverlayTree(image.Init(f.init), in.Extra)
	if err != nil {
		return usagef("%w", err)
	}
	if err := image.WriteOverlay(f.out, in.Program, image.Init(f.init), t); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f.streams.out, "wrote    %s: %s, %s, %s\n", f.out, image.OverlayAgent, image.OverlayRoot, image.OverlayEnv)
	return err
}

type rootfsCheck struct {
	streams
	asJSON bool
}

func newRootfsCheck(s streams) *cobra.Command {
	f := &rootfsCheck{streams: s}
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "List what kata's runtime expects in a root file system, and what is missing",
		Args:  exactly("DIR"),
		RunE:  func(_ *cobra.Command, args []string) error { return f.run(args[0]) },
	}
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsCheck) run(dir string) error {
	findings, err := image.CheckKata(dir)
	if err != nil {
		return err
	}
	bad := 0
	for _, finding := range findings {
		if finding.Problem != "" {
			bad++
		}
		if f.asJSON {
			continue
		}
		line := "ok       " + finding.Expected
		if finding.Problem != "" {
			line = "missing  " + finding.Expected + ": " + finding.Problem
		}
		if _, err := fmt.Fprintln(f.out, printable(line)); err != nil {
			return err
		}
	}
	if f.asJSON {
		if err := printJSON(f.out, findings); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s is no root file system for kata: %d of %d expectations are not met", dir, bad, len(findings))
	}
	return nil
}
