// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
)

// runPS lists the declared containers.
func runPS(ctx context.Context, args []string) error {
	asJSON, _, err := parseControl(args, 0, "json", "print JSON")
	if err != nil {
		return err
	}
	list, err := standalone.NewClient(controlSocket).List(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(list)
	}
	return printStatus(os.Stdout, list)
}

func printStatus(w io.Writer, list []standalone.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tFOR\tPID\tEXIT\tRESTARTS\tIMAGE")
	for _, s := range list {
		pid, exit := "-", "-"
		if s.PID != 0 {
			pid = strconv.Itoa(s.PID)
		}
		if s.ExitCode != nil {
			exit = strconv.Itoa(*s.ExitCode)
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%s\t%s\t%d\t%s\n", s.Name, s.State, time.Duration(s.Seconds)*time.Second, pid, exit, s.Restarts, s.Image)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range list {
		if s.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", s.Name, s.Error)
		}
	}
	return nil
}

// runLogs prints the kept end of a container's output, both streams as they came.
func runLogs(ctx context.Context, args []string) error {
	follow, rest, err := parseControl(args, 1, "follow", "go on until the container stays down")
	if err != nil {
		return err
	}
	return standalone.NewClient(controlSocket).Log(ctx, rest[0], follow, os.Stdout, func(lost int64) {
		if lost > 0 {
			fmt.Fprintf(os.Stderr, "casemate: %d earlier bytes are not kept\n", lost)
		}
	})
}

// runStop ends a container and keeps it down until casemate serves anew.
func runStop(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: got %d arguments", errUsage, len(args))
	}
	return standalone.NewClient(controlSocket).Stop(ctx, args[0])
}

// parseControl reads the one flag of a verb that needs no configuration.
func parseControl(args []string, n int, name, help string) (bool, []string, error) {
	set := flag.NewFlagSet("casemate", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	on := set.Bool(name, false, help)
	if err := set.Parse(args); err != nil {
		return false, nil, fmt.Errorf("%w: %w; the flag is --%s", errUsage, err, name)
	}
	if set.NArg() != n {
		return false, nil, fmt.Errorf("%w: got %d arguments", errUsage, set.NArg())
	}
	return *on, set.Args(), nil
}
