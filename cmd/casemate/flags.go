// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// options are the flags that several verbs share.
type options struct {
	config string
	quiet  bool
}

// parse reads a verb's flags and checks the number of arguments behind them; max
// below 0 is any number. add may be nil.
func parse(args []string, minimum, maximum int, add func(*flag.FlagSet)) (options, []string, error) {
	var o options
	set := flag.NewFlagSet("casemate", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.config, "config", config.DefaultPath, "the measured configuration")
	set.BoolVar(&o.quiet, "quiet", false, "print errors only")
	if add != nil {
		add(set)
	}
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, nil, fmt.Errorf("%w: flags are %s", errUsage, flagNames(set))
		}
		return o, nil, fmt.Errorf("%w: %w; flags are %s", errUsage, err, flagNames(set))
	}
	rest := set.Args()
	if len(rest) < minimum || maximum >= 0 && len(rest) > maximum {
		return o, nil, fmt.Errorf("%w: got %d arguments", errUsage, len(rest))
	}
	return o, rest, nil
}

func flagNames(set *flag.FlagSet) string {
	names := ""
	set.VisitAll(func(f *flag.Flag) { names += " --" + f.Name })
	return names[1:]
}
