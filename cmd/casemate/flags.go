// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// options are the flags that several verbs share.
type options struct {
	config string
	quiet  bool
}

// helpRequest is the error of a verb that was asked what it takes.
type helpRequest struct {
	of    *verb  // the one below the verb, nil for the verb itself
	lines string // its flags or verbs
}

func (helpRequest) Error() string { return "help was asked for" }

// print is for the verb v.
func (h helpRequest) print(w io.Writer, v verb) {
	if h.of != nil {
		v = verb{name: v.name + " " + h.of.name, args: h.of.args, help: h.of.help}
	}
	fmt.Fprintf(w, "usage: casemate %s\n%s\n%s", strings.TrimSpace(v.name+" "+v.args), v.help, h.lines)
}

// parseGuest reads the flags of a verb that works in the guest as configuration says.
func parseGuest(args []string, minimum, maximum int, add func(*flag.FlagSet)) (options, []string, error) {
	var o options
	rest, err := parse(args, minimum, maximum, func(set *flag.FlagSet) {
		set.StringVar(&o.config, "config", config.DefaultPath, "the measured configuration, a `FILE`")
		set.BoolVar(&o.quiet, "quiet", false, "print errors only")
		if add != nil {
			add(set)
		}
	})
	return o, rest, err
}

// parse reads a verb's flags and checks the number of arguments behind them; max
// below 0 is any number. add may be nil.
func parse(args []string, minimum, maximum int, add func(*flag.FlagSet)) ([]string, error) {
	set := flag.NewFlagSet("casemate", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	if add != nil {
		add(set)
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, helpRequest{lines: describe(set)}
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	rest := set.Args()
	if len(rest) < minimum || maximum >= 0 && len(rest) > maximum {
		return nil, fmt.Errorf("%w: got %d arguments", errUsage, len(rest))
	}
	return rest, nil
}

// describe is a line for each flag.
func describe(set *flag.FlagSet) string {
	var b strings.Builder
	set.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  %-22s %s", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(value)), text)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// among runs the one of a verb's own verbs that args begin with.
func among(ctx context.Context, args []string, list []verb) error {
	var names, lines []string
	for _, v := range list {
		if len(args) > 0 && args[0] == v.name {
			err := v.run(ctx, args[1:])
			if h, ok := errors.AsType[helpRequest](err); ok && h.of == nil {
				return helpRequest{&v, h.lines}
			}
			return err
		}
		names = append(names, v.name)
		lines = append(lines, fmt.Sprintf("  %-28s %s\n", v.name+" "+v.args, v.help))
	}
	want := strings.Join(names, ", ")
	switch {
	case len(args) == 0:
		return fmt.Errorf("%w: want one of %s", errUsage, want)
	case asksHelp(args[0]):
		return helpRequest{lines: strings.Join(lines, "")}
	}
	return fmt.Errorf("%w: want one of %s, got %q", errUsage, want, args[0])
}

func asksHelp(word string) bool { return word == "help" || word == "-h" || word == "--help" }
