// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	streamTime = 5 * time.Second
	// streamRead is what kata's shim asks for at once.
	streamRead = 32 << 10
	// clockTick is USER_HZ, the unit of times in /proc/PID/stat (proc(5)).
	clockTick = 10 * time.Millisecond
)

// stream measures a container's output through ReadStdout at two rates, as the reader
// sets them, and the share of one core that the agent takes for it.
func stream(ctx context.Context, f *agentFixture, p *agentProcess) ([]figure, error) {
	var figures []figure
	for _, rate := range []float64{1, 200} {
		id := fmt.Sprintf("stream%.0f", rate)
		if err := p.start(ctx, id, f.image, "/bin/busybox", "cat", "/dev/zero"); err != nil {
			return nil, err
		}
		got, share, err := p.read(ctx, id, rate)
		if err != nil {
			return nil, err
		}
		figures = append(figures,
			figure{name: fmt.Sprintf("stream-%.0f", rate), unit: "MB/s", value: got, budget: "-", met: true},
			figure{name: fmt.Sprintf("stream-%.0f-cpu", rate), unit: "%", value: share, budget: "-", met: true})
		if _, err := p.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// read takes a container's output at no more than rate, in MB/s. It returns the rate it
// had and the agent's share of one core in percent.
func (p *agentProcess) read(ctx context.Context, id string, rate float64) (got, share float64, err error) {
	before, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	start, bytes := time.Now(), 0
	for time.Since(start) < streamTime {
		r, err := p.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: id, Len: streamRead})
		if err != nil {
			return 0, 0, err
		}
		bytes += len(r.Data)
		due := time.Duration(float64(bytes) / (rate * 1e6) * float64(time.Second))
		time.Sleep(due - time.Since(start))
	}
	took := time.Since(start)
	after, err := cpuTime(p.cmd.Process.Pid)
	return float64(bytes) / 1e6 / took.Seconds(), 100 * (after - before).Seconds() / took.Seconds(), err
}

// cpuTime is the user and system time of a process.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name, which may hold anything, utime is the 12th field and stime the 13th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
