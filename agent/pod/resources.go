// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"

	"github.com/opencontainers/cgroups"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// statsContainer reads the container's counters. No lock is held meanwhile: the
// kernel may take its time.
func (s *Service) statsContainer(_ context.Context, req *kata.StatsContainerRequest) (*kata.StatsContainerResponse, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	stats, err := e.container.Stats()
	if err != nil {
		return nil, err
	}
	return &kata.StatsContainerResponse{CgroupStats: counters(stats)}, nil
}

func counters(s *cgroups.Stats) *kata.CgroupStats {
	cpu, mem, io := &s.CpuStats, &s.MemoryStats, &s.BlkioStats
	out := &kata.CgroupStats{
		CpuStats: &kata.CpuStats{
			CpuUsage: &kata.CpuUsage{
				TotalUsage: cpu.CpuUsage.TotalUsage, PercpuUsage: cpu.CpuUsage.PercpuUsage,
				UsageInKernelmode: cpu.CpuUsage.UsageInKernelmode, UsageInUsermode: cpu.CpuUsage.UsageInUsermode,
			},
			ThrottlingData: &kata.ThrottlingData{
				Periods: cpu.ThrottlingData.Periods, ThrottledPeriods: cpu.ThrottlingData.ThrottledPeriods,
				ThrottledTime: cpu.ThrottlingData.ThrottledTime,
			},
		},
		MemoryStats: &kata.MemoryStats{
			Cache: mem.Cache, Usage: memory(mem.Usage), SwapUsage: memory(mem.SwapUsage), KernelUsage: memory(mem.KernelUsage),
			UseHierarchy: mem.UseHierarchy, Stats: mem.Stats,
		},
		PidsStats: &kata.PidsStats{Current: s.PidsStats.Current, Limit: s.PidsStats.Limit},
		BlkioStats: &kata.BlkioStats{
			IoServiceBytesRecursive: blkio(io.IoServiceBytesRecursive), IoServicedRecursive: blkio(io.IoServicedRecursive),
			IoQueuedRecursive: blkio(io.IoQueuedRecursive), IoServiceTimeRecursive: blkio(io.IoServiceTimeRecursive),
			IoWaitTimeRecursive: blkio(io.IoWaitTimeRecursive), IoMergedRecursive: blkio(io.IoMergedRecursive),
			IoTimeRecursive: blkio(io.IoTimeRecursive), SectorsRecursive: blkio(io.SectorsRecursive),
		},
		HugetlbStats: map[string]*kata.HugetlbStats{},
	}
	for size, h := range s.HugetlbStats {
		out.HugetlbStats[size] = &kata.HugetlbStats{Usage: h.Usage, MaxUsage: h.MaxUsage, Failcnt: h.Failcnt}
	}
	return out
}

func memory(m cgroups.MemoryData) *kata.MemoryData {
	return &kata.MemoryData{Usage: m.Usage, MaxUsage: m.MaxUsage, Failcnt: m.Failcnt, Limit: m.Limit}
}

func blkio(list []cgroups.BlkioStatEntry) []*kata.BlkioStatsEntry {
	var out []*kata.BlkioStatsEntry
	for _, e := range list {
		out = append(out, &kata.BlkioStatsEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

// updateContainer replaces limits, always below those of all containers together.
// Device rules, networks and block devices stay as they were made.
func (s *Service) updateContainer(_ context.Context, req *kata.UpdateContainerRequest) (*emptypb.Empty, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if req.GetResources() == nil {
		return nil, fail(codes.InvalidArgument, "the request has no resources")
	}
	if err := e.container.Update(resources(req.GetResources())); err != nil {
		if errors.Is(err, container.ErrNotRunning) {
			return nil, fail(codes.FailedPrecondition, "container %s is not running", e.id)
		}
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// watchMemory reports the container's out-of-memory events until it is deleted.
func (s *Service) watchMemory(e *entry) error {
	events, err := e.container.OOM()
	if err != nil {
		return err
	}
	go func() {
		for range events {
			select {
			case s.ooms <- e.id:
			default: // the host has long stopped asking
			}
		}
	}()
	return nil
}

// oomEvent waits for the next event: a runtime that is answered asks again at once.
func (s *Service) oomEvent(ctx context.Context, _ *kata.GetOOMEventRequest) (*kata.OOMEvent, error) {
	select {
	case id := <-s.ooms:
		return &kata.OOMEvent{ContainerId: id}, nil
	case <-s.over: // kata's runtime always has one of these requests open
		return nil, fail(codes.Unavailable, "the sandbox has been destroyed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
