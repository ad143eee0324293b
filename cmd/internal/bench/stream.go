// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

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

// stream measures the output of containers through ReadStdout at two rates, as the reader
// sets them: the rate, the share of one core that the agent takes for it, and what a gigabyte
// costs the agent and the client, which is containerd's. The client asks for more of a container
// when it has what it asked for, so 200 MB/s come from two: for one it waits as long as it works.
func stream(ctx context.Context, f *agentFixture, p *agentProcess) ([]figure, error) {
	var figures []figure
	for _, c := range []struct {
		rate float64 // MB/s of all containers
		from []string
	}{{1, []string{"stream1"}}, {200, []string{"stream200a", "stream200b"}}} {
		for _, id := range c.from {
			if err := p.start(ctx, id, f.image, "/bin/busybox", "cat", "/dev/zero"); err != nil {
				return nil, err
			}
		}
		s, err := p.readAll(ctx, c.from, c.rate)
		if err != nil {
			return nil, err
		}
		add := func(suffix, unit string, value float64) {
			figures = append(figures, figure{name: fmt.Sprintf("stream-%.0f%s", c.rate, suffix), unit: unit, value: value, budget: "-", met: true})
		}
		add("", "MB/s", 1e3*s.gigabytes()/s.took.Seconds())
		add("-cpu", "%", 100*s.agent.Seconds()/s.took.Seconds())
		add("-agent", "s/GB", s.agent.Seconds()/s.gigabytes())
		add("-client", "s/GB", s.client.Seconds()/s.gigabytes())
		for _, id := range c.from {
			if _, err := p.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
				return nil, err
			}
		}
	}
	return figures, nil
}

// readAll takes the output of containers at no more than rate, in MB/s, an equal part from each.
func (p *agentProcess) readAll(ctx context.Context, ids []string, rate float64) (s streamed, err error) {
	agent, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return s, err
	}
	client, err := cpuTime(os.Getpid())
	if err != nil {
		return s, err
	}
	group, ctx := errgroup.WithContext(ctx)
	start, sizes := time.Now(), make([]int, len(ids))
	for i, id := range ids {
		group.Go(func() (err error) {
			sizes[i], err = p.read(ctx, id, rate/float64(len(ids)), start)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return s, err
	}
	s.took = time.Since(start)
	for _, n := range sizes {
		s.bytes += n
	}
	if s.agent, err = cpuTime(p.cmd.Process.Pid); err != nil {
		return s, err
	}
	s.client, err = cpuTime(os.Getpid())
	s.agent, s.client = s.agent-agent, s.client-client
	return s, err
}

// read takes a container's output from start on and returns how many bytes there were.
func (p *agentProcess) read(ctx context.Context, id string, rate float64, start time.Time) (n int, err error) {
	for time.Since(start) < streamTime {
		r, err := p.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: id, Len: streamRead})
		if err != nil {
			return n, err
		}
		n += len(r.Data)
		due := time.Duration(float64(n) / (rate * 1e6) * float64(time.Second))
		time.Sleep(due - time.Since(start))
	}
	return n, nil
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
