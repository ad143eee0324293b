// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/casemate/casemate/verity"
)

// verityTree measures trees over data on tmpfs, on all cores and on one, beside veritysetup, which has one thread.
func verityTree(ctx context.Context) ([]figure, error) {
	var figures []figure
	for _, c := range []struct {
		suffix   string
		mib      int
		oneCore  bool
		runs     int
		budgeted bool
	}{
		{suffix: "", mib: 512, runs: pullRuns, budgeted: true},
		{suffix: "-1core", mib: 512, oneCore: true, runs: pullRuns},
		{suffix: "-4gib", mib: 4096, runs: 3, budgeted: true},
		{suffix: "-4gib-1core", mib: 4096, oneCore: true, runs: 1},
	} {
		ours, peers, ratio, err := verityBeside(ctx, c.mib<<20, c.oneCore, c.runs)
		if err != nil {
			return nil, err
		}
		f := figure{name: "verity-tree" + c.suffix, value: ours, unit: "s", peer: "veritysetup", peerValue: peers, ratio: ratio, budget: "-", met: true}
		if c.budgeted {
			f.budget, f.met = "ratio>=3", ratio >= 3
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// verityBeside returns the medians of both programs' times and of their ratio.
func verityBeside(ctx context.Context, size int, oneCore bool, runs int) (ours, peers, ratio float64, err error) {
	dir, err := os.MkdirTemp("/dev/shm", "casemate-bench-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if err := writeNoise(data, size); err != nil {
		return 0, 0, 0, err
	}
	if oneCore {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	var a, b, c []float64
	for range runs {
		took, err := buildTree(ctx, data, size, filepath.Join(dir, "ours"))
		if err != nil {
			return 0, 0, 0, err
		}
		peer, _, _, err := timed(exec.CommandContext(ctx, "veritysetup", "format", data, filepath.Join(dir, "theirs")))
		if err != nil {
			return 0, 0, 0, err
		}
		a, b, c = append(a, took), append(b, peer), append(c, peer/took)
	}
	return median(a), median(b), median(c), nil
}

func buildTree(ctx context.Context, data string, size int, tree string) (seconds float64, err error) {
	in, err := os.Open(data)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	start := time.Now()
	out, err := os.Create(tree)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	_, err = verity.Build(ctx, in, out, verity.Params{
		HashType: 1, Algorithm: "sha256", Salt: make([]byte, 32), DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: uint64(size) / 4096,
	})
	return time.Since(start).Seconds(), err
}

// writeNoise writes n bytes, a multiple of 1 MiB, that are the same in every run: no
// block is all zeros, which would cost nothing.
func writeNoise(name string, n int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	for range n / len(block) {
		_, _ = noise.Read(block) // never fails
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
