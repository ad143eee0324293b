// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRootSequences runs sequences that chance has made, the same ones each time.
func TestRootSequences(t *testing.T) {
	t.Run("CVE-2026-41326", func(t *testing.T) { runSequence(t, throughLink) })
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(r.UintN(256))
		}
		if seed%8 != 0 {
			data = append(slices.Clone(opening), data...)
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runSequence(t, data) })
	}
	calls.Lock()
	defer calls.Unlock()
	t.Logf("answered: %v; refused: %v", calls.done, calls.failed)
}
