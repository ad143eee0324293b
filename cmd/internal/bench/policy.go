// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/policy"
)

const (
	policyLoads = 15
	// policyRounds of policyDecisions each: the median of the rounds' p99, since a neighbour on the machine can make
	// one round slow.
	policyRounds    = 9
	policyDecisions = 200
	createRequest   = "CreateContainerRequest"
)

// policyLoad measures a generated policy from its bytes to its first decision.
func policyLoad(ctx context.Context) ([]figure, error) {
	text, err := generatePolicy()
	if err != nil {
		return nil, err
	}
	var took []float64
	for range policyLoads {
		start := time.Now()
		p, err := policy.Load(text)
		if err != nil {
			return nil, err
		}
		if err := p.Allow(ctx, createRequest, benchCreate(false)); err != nil {
			return nil, fmt.Errorf("deciding about an allowed request: %w", err)
		}
		took = append(took, milliseconds(time.Since(start)))
	}
	value := median(took)
	return []figure{
		// The first one is what a guest pays: nothing of the library is warm.
		{name: "policy-load", unit: "ms", value: value, budget: "<=60", met: value <= 60},
		{name: "policy-load-first", unit: "ms", value: took[0], budget: "<=60", met: took[0] <= 60},
	}, nil
}

// policyDecide measures single decisions, allowed and denied.
func policyDecide(ctx context.Context) ([]figure, error) {
	text, err := generatePolicy()
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(text)
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, denied := range []bool{false, true} {
		name := map[bool]string{false: "policy-allow-p99", true: "policy-deny-p99"}[denied]
		var rounds []float64
		for range policyRounds {
			p99, err := policyRound(ctx, p, denied)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			rounds = append(rounds, p99)
		}
		p99 := median(rounds)
		figures = append(figures, figure{name: name, unit: "ms", value: p99, budget: "<=5", met: p99 <= 5})
	}
	return figures, nil
}

// policyRound returns the p99 of decisions one after the other, each in a new goroutine, as the server of the kata API
// has them made, and about a container of its own: its id is in all of its mounts.
func policyRound(ctx context.Context, p *policy.Policy, denied bool) (float64, error) {
	var took []float64
	for range policyDecisions {
		msg := benchCreateAs(newID(), denied)
		var d agent.Decision
		var err error
		done := make(chan struct{})
		start := time.Now()
		go func() {
			defer close(done)
			d, err = p.Decide(ctx, createRequest, msg)
		}()
		<-done
		took = append(took, milliseconds(time.Since(start)))
		var denial *agent.Denial
		switch {
		case err == nil && !denied:
			d.Undo()
		case !denied || !errors.As(err, &denial) || denial.Reason.Code != "policy-denied":
			return 0, fmt.Errorf("the wrong verdict: %w", err)
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}

// newID is as long as the ids of container engines.
func newID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // does not fail
	return hex.EncodeToString(id[:])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
