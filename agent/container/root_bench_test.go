// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkCreateStart measures create and start of a container whose image is
// there, alternating with `runc create` and `runc start` of the same bundle, and
// reports the medians. Deleting is not counted.
func BenchmarkCreateStart(b *testing.B) {
	rt := testRuntime(b)
	ctx := context.Background()
	bundle := bundle(b, "/bin/sleep", "1000")
	raw, err := json.Marshal(bundle.Spec)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle.Dir, "config.json"), raw, 0o644); err != nil {
		b.Fatal(err)
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		b.Logf("no peer: %v", err)
	}
	var ours, theirs []time.Duration
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("bench-%d", i)
		began := time.Now()
		c, err := rt.Create(ctx, id, bundle, Stdio{})
		if err == nil {
			err = c.Start(ctx)
		}
		ours = append(ours, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Delete(ctx); err != nil {
			b.Fatal(err)
		}
		if runc == "" {
			continue
		}
		call := func(args ...string) {
			cmd := exec.Command(runc, append([]string{"--root", filepath.Join(bundle.Dir, "runc")}, args...)...)
			if err := rt.reaper.Command(cmd); err != nil {
				b.Fatalf("runc %v: %v", args, err)
			}
		}
		began = time.Now()
		call("create", "--bundle", bundle.Dir, id)
		call("start", id)
		theirs = append(theirs, time.Since(began))
		call("delete", "--force", id)
	}
	b.ReportMetric(median(ours).Seconds()*1e3, "p50-ms")
	if len(theirs) > 0 {
		b.ReportMetric(median(theirs).Seconds()*1e3, "runc-p50-ms")
		b.ReportMetric(float64(median(theirs))/float64(median(ours)), "ratio")
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkOutput measures how fast a container's output passes through.
func BenchmarkOutput(b *testing.B) {
	rt := testRuntime(b)
	ctx := context.Background()
	const size = 256 << 20
	bundle := bundle(b, "/bin/dd", "if=/dev/zero", "bs=64k", fmt.Sprintf("count=%d", size>>16))
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		c, err := rt.Create(ctx, fmt.Sprintf("output-%d", i), bundle, Stdio{Stdout: newSink()})
		if err == nil {
			err = c.Start(ctx)
		}
		if err == nil {
			err = c.WaitOutput(ctx)
		}
		if err == nil {
			err = c.Delete(ctx)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
