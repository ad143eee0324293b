// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/casemate/casemate/verity"
)

// veritySize is how much is hashed.
const veritySize = 512 << 20

// verityTree measures the tree over 512 MiB on tmpfs, beside veritysetup.
func verityTree(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("/dev/shm", "casemate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if err := writeNoise(data, veritySize); err != nil {
		return nil, err
	}
	var ours, peers, ratios []float64
	for range pullRuns {
		took, err := buildTree(ctx, data, filepath.Join(dir, "ours"))
		if err != nil {
			return nil, err
		}
		peer, _, _, err := timed(exec.CommandContext(ctx, "veritysetup", "format", data, filepath.Join(dir, "theirs")))
		if err != nil {
			return nil, err
		}
		ours, peers, ratios = append(ours, took), append(peers, peer), append(ratios, peer/took)
	}
	ratio := median(ratios)
	return []figure{{
		name: "verity-tree", value: median(ours), unit: "s", peer: "veritysetup", peerValue: median(peers),
		ratio: ratio, budget: "ratio>=3", met: ratio >= 3,
	}}, nil
}

func buildTree(ctx context.Context, data, tree string) (seconds float64, err error) {
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
		HashType: 1, Algorithm: "sha256", Salt: make([]byte, 32), DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: veritySize / 4096,
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
