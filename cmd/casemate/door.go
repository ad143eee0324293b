// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/policy"
)

// What the host reads of a guest that serves nobody.
const (
	notAccepted = "the guest's configuration or initdata was not accepted"
	wrongTEE    = "the machine has not the TEE that the guest was made for"
	noScratch   = "the guest's scratch could not be opened"
)

// errOwnNetwork refuses to start casemate otherwise than [network] means it.
var errOwnNetwork = errors.New("[network] is for a guest whose first process is casemate, which then sets up the network and runs the declared containers alone")

// keyPolicy is the agent policy in initdata's data table.
const keyPolicy = "policy.rego"

// doorError says why a door is parked.
type doorError struct {
	reason agent.Reason // what the host reads in every refusal
	err    error
}

func (e *doorError) Error() string { return e.err.Error() }
func (e *doorError) Unwrap() error { return e.err }

// park closes the door for good and returns the error that says so.
func park(door *agent.Door, code, phrase string, err error) error {
	reason := agent.Reason{Code: code, Phrase: phrase}
	door.Park(reason)
	return &doorError{reason, err}
}

// openDoor checks initdata against the TEE's report and opens the door with the policy
// in it, with the pod's files on scratch. Whatever fails parks the door, a *doorError: there is no second attempt with
// less.
func openDoor(ctx context.Context, src source, door *agent.Door, p *podParts) (*machine, error) {
	m, err := src.open(ctx)
	if errors.Is(err, errNoTEE) {
		return nil, park(door, "tee", wrongTEE, err)
	}
	if err != nil {
		return nil, park(door, "initdata", notAccepted, err)
	}
	go m.incidents.Run(ctx)
	if err := p.scratch.open(ctx, m, podPlaces()...); err != nil {
		return nil, park(door, "scratch", noScratch, err)
	}
	p.volumes.use(m)
	p.images.use(m)
	return m, m.openDoor(door)
}

func (m *machine) openDoor(door *agent.Door) error {
	if m.conf.Network.Mode != "" {
		return park(door, "initdata", notAccepted, errOwnNetwork)
	}
	if len(m.conf.Containers) > 0 {
		return park(door, "initdata", notAccepted, errors.New("[[container]] is for casemate serve and for guests whose measured configuration has [network]: here the host's runtime starts containers"))
	}
	var p *policy.Policy
	err := m.steps.do("load the agent policy", func() (err error) {
		p, err = m.agentPolicy()
		return err
	})
	if err != nil {
		return park(door, "policy", "the policy of initdata cannot be loaded", err)
	}
	p.Watch(func(d policy.Denial) {
		m.denials.keep(m.log, d)
		m.explains.take(m.incidents, d)
	})
	door.Open(debugPolicy(p))
	return nil
}

// agentPolicy is initdata's policy, or the built-in one where initdata has none. One that
// is there and empty is an error, not none.
func (m *machine) agentPolicy() (*policy.Policy, error) {
	if m.rego == nil {
		form := ""
		if m.conf.Agent.Strict {
			form = ", strictly: nothing is copied into the guest, and it gives no logs"
		}
		m.steps.say("no agent policy in initdata: the built-in one applies%s", form)
		return policy.BuiltIn(m.conf.Agent.Strict)
	}
	p, err := policy.Load([]byte(*m.rego))
	if err != nil {
		return nil, fmt.Errorf("reading initdata's %s: %w", keyPolicy, err)
	}
	return p, nil
}
