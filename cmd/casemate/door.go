// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/policy"
)

// keyPolicy is the agent policy in initdata's data table.
const keyPolicy = "policy.rego"

// openDoor checks initdata against the TEE's report and opens the door with the policy
// in it. Whatever fails parks the door: there is no second attempt with less.
func openDoor(ctx context.Context, o options, door *agent.Door, images *podImages) error {
	m, err := openGuest(ctx, o)
	if err != nil {
		door.Park(agent.Reason{Code: "initdata", Phrase: "the guest's configuration or initdata was not accepted"})
		return err
	}
	images.use(m)
	return m.openDoor(door)
}

func (m *machine) openDoor(door *agent.Door) error {
	var p *policy.Policy
	err := m.steps.do("load the agent policy", func() (err error) {
		p, err = m.agentPolicy()
		return err
	})
	if err != nil {
		door.Park(agent.Reason{Code: "policy", Phrase: "the policy of initdata cannot be loaded"})
		return err
	}
	door.Open(p)
	return nil
}

// agentPolicy is initdata's policy, or the built-in one where initdata has none. One that
// is there and empty is an error, not none.
func (m *machine) agentPolicy() (*policy.Policy, error) {
	if m.rego == nil {
		m.steps.say("no agent policy in initdata: the built-in one applies")
		return policy.BuiltIn()
	}
	p, err := policy.Load([]byte(*m.rego))
	if err != nil {
		return nil, fmt.Errorf("reading initdata's %s: %w", keyPolicy, err)
	}
	return p, nil
}
