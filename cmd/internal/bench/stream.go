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

// streamed is what reading a container's output came to.
type streamed struct {
	bytes         int
	took          time.Duration
	agent, client time.Duration // user and system time
}

func (s streamed) gigabytes() float64 { return float64(s.bytes) / 1e9 }

// stream measures a container's output through ReadStdout at two rates, as the reader
// sets them: the rate, the share of one core that the agent takes for it, and what a gigabyte
// costs the agent and the client, which is containerd's. The client asks for more when it has
// what it asked for, so the rate depends on both.
func stream(ctx context.Context, f *agentFixture, p *agentProcess) ([]figure, error) {
	var figures []figure
	for _, rate := range []float64{1, 200} {
		id := fmt.Sprintf("stream%.0f", rate)
		if err := p.start(ctx, id, f.image, "/bin/busybox", "cat", "/dev/zero"); err != nil {
			return nil, err
		}
		s, err := p.read(ctx, id, rate)
		if err != nil {
			return nil, err
		}
		add := func(suffix, unit string, value float64) {
			figures = append(figures, figure{name: fmt.Sprintf("stream-%.0f%s", rate, suffix), unit: unit, value: value, budget: "-", met: true})
		}
		add("", "MB/s", 1e3*s.gigabytes()/s.took.Seconds())
		add("-cpu", "%", 100*s.agent.Seconds()/s.took.Seconds())
		add("-agent", "s/GB", s.agent.Seconds()/s.gigabytes())
		add("-client", "s/GB", s.client.Seconds()/s.gigabytes())
		if _, err := p.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// read takes a container's output at no more than rate, in MB/s.
func (p *agentProcess) read(ctx context.Context, id string, rate float64) (s streamed, err error) {
	agent, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return s, err
	}
	client, err := cpuTime(os.Getpid())
	if err != nil {
		return s, err
	}
	for start := time.Now(); s.took < streamTime; s.took = time.Since(start) {
		r, err := p.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: id, Len: streamRead})
		if err != nil {
			return s, err
		}
		s.bytes += len(r.Data)
		due := time.Duration(float64(s.bytes) / (rate * 1e6) * float64(time.Second))
		time.Sleep(due - time.Since(start))
	}
	if s.agent, err = cpuTime(p.cmd.Process.Pid); err != nil {
		return s, err
	}
	s.client, err = cpuTime(os.Getpid())
	s.agent, s.client = s.agent-agent, s.client-client
	return s, err
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
