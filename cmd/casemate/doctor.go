// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/doctor"
)

// errUnwell is the exit code of a doctor that found something: its report said what.
var errUnwell = errors.New("something is missing or unproved: see the lines marked look")

// runDoctor says what proves this machine's parts, and what undoes it. Named a platform,
// it says that platform's and looks at nothing.
func runDoctor(ctx context.Context, args []string) error {
	var asJSON bool
	o, rest, err := parseGuest(args, 0, 1, func(s *flag.FlagSet) { s.BoolVar(&asJSON, "json", false, "print JSON") })
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		p, ok := doctor.Find(rest[0])
		if !ok {
			return fmt.Errorf("%w: unknown platform %q, known are %s", errUsage, rest[0], platformNames())
		}
		if asJSON {
			return doctor.PrintJSON(os.Stdout, nil, p)
		}
		return p.Print(os.Stdout)
	}
	m := examine(ctx, o.config, "/")
	p, known := doctor.Find(m.Platform)
	if asJSON {
		err = doctor.PrintJSON(os.Stdout, m, p)
	} else if err = m.Print(os.Stdout); err == nil && known {
		err = p.Print(os.Stdout)
	}
	if err == nil && !m.Healthy() {
		err = errUnwell
	}
	return err
}

func platformNames() string {
	names := ""
	for _, p := range doctor.Platforms() {
		names += " " + p.ID
	}
	return names[1:]
}

// examine looks at the machine, at its configuration and at a fresh report.
func examine(ctx context.Context, configFile, root string) *doctor.Machine {
	found := doctor.Inspect(root)
	conf, err := config.Load(configFile)
	found.Config(configFile, err, conf.Weaknesses())
	attester, err := attest.Detect(attest.Config{TestSignerDir: conf.TestSNP.Dir})
	if err != nil {
		found.Bound("", nil, false, err)
		return found
	}
	reader, ok := attester.(attest.InitDataReader)
	if !ok {
		found.Bound(string(attester.TEE()), nil, true, nil)
		return found
	}
	bound, err := reader.BoundInitData(ctx)
	found.Bound(string(attester.TEE()), bound, initdata.IsZero(bound), err)
	return found
}
