// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/casemate/casemate/rootfs/kernel"
	"github.com/casemate/casemate/rootfs/vmtest"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const (
	scratchSize = 10 << 30  // of the disk that is opened
	fillSize    = 256 << 20 // of the one that is filled
	diskRuns    = 3

	scratchDisk = "/dev/vda" // in the guest
	fillDisk    = "/dev/vdb"
	// diskTime bounds the guest: an emulated processor encrypts some 30 MB/s.
	diskTime = 20 * time.Minute
)

// diskFigures boots a guest with the two disks, asks the program in it for one benchmark and returns its lines:
// names to pairs of ours and the peer's.
func diskFigures(ctx context.Context, args ...string) (_ map[string][][2]float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, diskTime)
	defer cancel()
	vm, done, err := bootDisks(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	var out bytes.Buffer
	code, err := vm.Run(ctx, remote.Request{Run: "inguest", Args: args, Seconds: int(diskTime.Seconds())}, &out)
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("in the guest: exit code %d: %s", code, out.Bytes())
	}
	figures := map[string][][2]float64{}
	for line := range strings.Lines(out.String()) {
		var name string
		var pair [2]float64
		if _, err := fmt.Sscan(line, &name, &pair[0], &pair[1]); err != nil {
			return nil, fmt.Errorf("in the guest: %q: %w", line, err)
		}
		figures[name] = append(figures[name], pair)
	}
	return figures, nil
}

// bootDisks makes what the guest needs; done ends it all.
func bootDisks(ctx context.Context) (_ *vmtest.VM, done func() error, err error) {
	cache, err := vmtest.CacheDir()
	if err != nil {
		return nil, nil, err
	}
	k, err := kernel.Prepare(ctx, filepath.Join(cache, "kernel"))
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "casemate-bench-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	files, disks, err := diskFiles(ctx, dir)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	init, initrd := filepath.Join(dir, "init"), filepath.Join(dir, "initrd")
	err = vmtest.Build(ctx, vmtest.Program{Package: "./cmd/casemate", Tags: "vmtest", Cgo: true}, init)
	if err == nil {
		err = vmtest.WriteImage(ctx, initrd, k, init, files)
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	vm, err := vmtest.Boot(ctx, vmtest.Config{Kernel: k.Image, Initrd: initrd, Disks: disks, MemoryMiB: 512, TimeLimit: diskTime})
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return vm, func() error { return errors.Join(vm.Stop(), remove()) }, nil
}

func diskFiles(ctx context.Context, dir string) (files []vmtest.File, disks []string, err error) {
	program := filepath.Join(dir, "inguest")
	if err := vmtest.Build(ctx, vmtest.Program{Package: "./cmd/internal/bench/inguest"}, program); err != nil {
		return nil, nil, err
	}
	files = []vmtest.File{{Path: "/tests/inguest", HostPath: program, Perm: 0o755}}
	seen := map[string]bool{}
	for _, peer := range []string{"/usr/sbin/cryptsetup", "/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck"} {
		list, err := vmtest.HostProgram(peer)
		if err != nil {
			return nil, nil, err
		}
		for _, f := range list { // libraries that several load
			if !seen[f.Path] {
				seen[f.Path], files = true, append(files, f)
			}
		}
	}
	for i, size := range []int64{scratchSize, fillSize} {
		disk, err := vmtest.TempDisk(dir, fmt.Sprint("disk", i), size)
		if err != nil {
			return nil, nil, err
		}
		disks = append(disks, disk)
	}
	return files, disks, nil
}

// scratchOpen measures 10 GiB of scratch with integrity and ext4, up to where it can be written to, beside what
// guest-components runs. The same guarantees are proved first, on 256 MiB.
func scratchOpen(ctx context.Context) ([]figure, error) {
	if _, err := diskFigures(ctx, "fill", fillDisk); err != nil {
		return nil, fmt.Errorf("filling 256 MiB to the last block: %w", err)
	}
	all, err := diskFigures(ctx, "open", scratchDisk, fmt.Sprint(diskRuns))
	if err != nil {
		return nil, err
	}
	return []figure{
		lessIsBetter("scratch-open", "cryptsetup+mkfs.ext4", "ratio>=5", 5, all["aegis"]),
		lessIsBetter("scratch-open-hmac", "cryptsetup+mkfs.ext4", "ratio>=1", 1, all["hmac"]),
	}, nil
}

// scratchThroughput measures writing and reading through dm-crypt over dm-integrity, by our table and by the one that
// cryptsetup makes by default. On an emulated processor the cipher takes nearly all of the time, which is the same in
// both; the budget is that leaving the journal out costs nothing. AEGIS, which cryptsetup does not take by default,
// is a lighter cipher.
func scratchThroughput(ctx context.Context) ([]figure, error) {
	all, err := diskFigures(ctx, "throughput", fillDisk, fmt.Sprint(diskRuns))
	if err != nil {
		return nil, err
	}
	return []figure{
		lessIsBetter("scratch-write-64MiB", "cryptsetup", "ratio>=0.9", 0.9, all["write"]),
		lessIsBetter("scratch-read-64MiB", "cryptsetup", "ratio>=0.9", 0.9, all["read"]),
		lessIsBetter("scratch-write-64MiB-aegis", "cryptsetup", "ratio>=1", 1, all["aegis-write"]),
		lessIsBetter("scratch-read-64MiB-aegis", "cryptsetup", "ratio>=1", 1, all["aegis-read"]),
	}, nil
}

// lessIsBetter is the figure of seconds of which the peer should take more.
func lessIsBetter(name, peer, budget string, least float64, pairs [][2]float64) figure {
	var ours, peers, ratios []float64
	for _, p := range pairs {
		ours, peers, ratios = append(ours, p[0]), append(peers, p[1]), append(ratios, p[1]/p[0])
	}
	if len(pairs) == 0 {
		return figure{name: name, unit: "s", budget: budget}
	}
	ratio := median(ratios)
	return figure{name: name, value: median(ours), unit: "s", peer: peer, peerValue: median(peers), ratio: ratio, budget: budget, met: ratio >= least}
}
