// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

const minEvidence = 300 // a second

var evidenceRate = regexp.MustCompile(`([0-9.]+) evidence/s`)

// verifySNP runs keybroker's own benchmark, which alone may reach the verifier: whole
// judgements on one core, the chain known.
func verifySNP(ctx context.Context) ([]figure, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkVerifySNP$", "-cpu", "1", "./cmd/keybroker/internal/verifier").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	m := evidenceRate.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("no figure in %q", out)
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	return []figure{{name: "verify-snp", unit: "/s", value: rate, budget: ">=300", met: rate >= minEvidence}}, err
}
