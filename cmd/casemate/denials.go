// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/cmd/casemate/internal/explain"
)

// defaultDenial is where the last denied request is written down: in memory, for the guest's own root alone. No
// container and no request of the host reaches it (docs/security.md 18).
const defaultDenial = "/run/casemate/denial.json"

// denialPause is how long a denial waits for the one before it: a host can make any number of them.
const denialPause = time.Second

// denials keeps the last denied request for casemate explain.
type denials struct {
	path string // "" is nowhere

	mu      sync.Mutex
	last    *policy.Denial // not written yet
	writing bool
}

// keep takes a denial without waiting for anything.
func (d *denials) keep(log *slog.Logger, x policy.Denial) {
	if d.path == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = &x
	if !d.writing {
		d.writing = true
		go d.write(log)
	}
}

// write writes what there is until there is no more.
func (d *denials) write(log *slog.Logger) {
	for ; ; time.Sleep(denialPause) {
		d.mu.Lock()
		x := d.last
		d.last = nil
		if x == nil {
			d.writing = false
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		raw, err := x.Encode()
		if err == nil {
			err = replacePrivate(d.path, raw)
		}
		if err != nil {
			log.Warn("a denied request is not written down for casemate explain", "error", err)
		}
	}
}

// admitDenied keeps why a process that the policy let pass is not the image's.
func (m *machine) admitDenied(differs *pod.Difference) {
	d := policy.Denial{
		Request: "CreateContainerRequest", Reason: agent.Reason{Code: "image", Phrase: differs.What + " is not what the image says"},
		Causes: []policy.Cause{{
			Rules: []string{"the built-in policy's comparison with the image's config"}, Text: differs.What + " is the image's",
			Field: differs.Field, Given: differs.Given, Wanted: differs.Wanted,
		}},
	}
	m.denials.keep(m.log, d)
	m.explains.take(m.incidents, d)
}

// explainPolicy says why a request was denied: the last one of this guest, or one that was saved with its policy.
func explainPolicy(ctx context.Context, args []string) error {
	path, text, request, input, asJSON := defaultDenial, "", "", "", false
	_, err := parse(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&path, "denial", path, "the denied request, a `FILE` saved from a guest")
		s.StringVar(&text, "policy", "", "a policy to judge it by instead of the guest's")
		s.StringVar(&request, "request", "", "the request's name, such as CreateContainerRequest, with --input")
		s.StringVar(&input, "input", "", "a request as policies read it, in JSON, instead of a saved one")
		s.BoolVar(&asJSON, "json", false, "print JSON")
	})
	if err != nil {
		return err
	}
	if (request == "") != (input == "") {
		return fmt.Errorf("%w: --request and --input go together", errUsage)
	}
	d := policy.Denial{Request: request}
	if input == "" {
		raw, err := readCapped(path, policy.MaxDenial)
		if errors.Is(err, fs.ErrNotExist) && path == defaultDenial {
			return errors.New("no request was denied by a policy since this machine booted: " + path + " is not there")
		}
		if err != nil {
			return fmt.Errorf("reading the denial: %w", err)
		}
		if d, err = policy.ParseDenial(raw); err != nil {
			return err
		}
	} else if raw, err := readCapped(input, policy.MaxDenial); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	} else if err := d.SetInput(raw); err != nil {
		return err
	}
	if text != "" {
		if d.Text, err = readCapped(text, policy.MaxText); err != nil {
			return fmt.Errorf("reading the policy: %w", err)
		}
	}
	x, err := d.Explain(ctx)
	if err != nil {
		return err
	}
	out := explain.NewPolicyDenial(d, x)
	if asJSON {
		return out.PrintJSON(os.Stdout)
	}
	return out.Print(os.Stdout)
}
