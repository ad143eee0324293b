// SPDX-License-Identifier: Apache-2.0

// Bench measures what the budgets promise, each figure beside its peer from the
// same run on the same machine.
//
//	bench [all|NAME]
//
// It prints one line a figure,
//
//	bench NAME VALUE UNIT peer=PEER:VALUE ratio=R budget=B ok
//
// with "over" as the last word, and exit code 1, where the budget is not met.
// Ratio is peer / ours, the median of alternating runs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// figure is one measured value. Budget is in words ("ratio>=5"); met says whether
// the value keeps it.
type figure struct {
	name, unit string
	value      float64
	peer       string
	peerValue  float64
	ratio      float64
	budget     string
	met        bool
}

func (f figure) String() string {
	peer, ratio := "-", "-"
	if f.peer != "" {
		peer, ratio = fmt.Sprintf("%s:%.2f", f.peer, f.peerValue), fmt.Sprintf("%.2f", f.ratio)
	}
	last := "ok"
	if !f.met {
		last = "over"
	}
	return fmt.Sprintf("bench %s %.2f %s peer=%s ratio=%s budget=%s %s", f.name, f.value, f.unit, peer, ratio, f.budget, last)
}

// benchmarks in the order in which "all" runs them.
func benchmarks() []struct {
	name string
	run  func(context.Context) ([]figure, error)
} {
	return []struct {
		name string
		run  func(context.Context) ([]figure, error)
	}{
		{"pull-gzip", pullGzip},
		{"pull-zstd", pullZstd},
		{"pull-store", pullStore},
		{"verity-tree", verityTree},
		{"scratch-open", scratchOpen},
		{"scratch-throughput", scratchThroughput},
		{"handshake", handshake},
		{"unwrap", unwrap},
		{"get-resource", getResource},
		{"ready", agentReady},
		{"container-start", inPod(containerStart)},
		{"idle-rss", idleRSS},
		{"rss-10-containers", inPod(loadedRSS)},
		{"stream", inPod(stream)},
		{"verify-snp", verifySNP},
		{"policy-load", policyLoad},
		{"policy", policyDecide},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == childPull {
		return report(pullOnce(ctx, args[1:]))
	}
	which := "all"
	if len(args) > 0 {
		which = args[0]
	}
	code, found := 0, false
	for _, b := range benchmarks() {
		if which != "all" && which != b.name {
			continue
		}
		found = true
		figures, err := b.run(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", b.name, err)
			code = 1
		}
		for _, f := range figures {
			fmt.Println(f)
			if !f.met {
				code = 1
			}
		}
	}
	if !found {
		fmt.Fprintf(os.Stderr, "not built: %s\n", which)
		return 1
	}
	return code
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
