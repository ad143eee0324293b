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
	var asJSON bool
	if _, err := parse(args, 0, 0, func(s *flag.FlagSet) { s.BoolVar(&asJSON, "json", false, "print JSON") }); err != nil {
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
	var follow bool
	rest, err := parse(args, 1, 1, func(s *flag.FlagSet) { s.BoolVar(&follow, "follow", false, "go on until the container stays down") })
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
	rest, err := parse(args, 1, 1, nil)
	if err != nil {
		return err
	}
	return standalone.NewClient(controlSocket).Stop(ctx, rest[0])
}
