// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/casemate/casemate/agent/policy"
)

func BenchmarkDecideAllowed(b *testing.B) { benchmarkDecide(b, false) }
func BenchmarkDecideDenied(b *testing.B)  { benchmarkDecide(b, true) }

// benchmarkDecide has a new goroutine decide about a new container each time, as the server of the kata API does.
func benchmarkDecide(b *testing.B, denied bool) {
	text, err := generatePolicy()
	if err != nil {
		b.Fatal(err)
	}
	p, err := policy.Load(text)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		msg := benchCreateAs(newID(), denied)
		b.StartTimer()
		go func() {
			d, err := p.Decide(b.Context(), createRequest, msg)
			if err == nil {
				d.Undo()
			}
			done <- err
		}()
		if err := <-done; (err != nil) != denied {
			b.Fatalf("denied %v, want %v: %v", err != nil, denied, err)
		}
	}
}
