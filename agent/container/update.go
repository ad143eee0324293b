// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the limits that r sets: memory, CPU, tasks and huge pages. What r
// leaves out stays as it is, and so do device rules. The kernel keeps every limit
// below that of all containers together.
func (c *Container) Update(r *specs.LinuxResources) error {
	c.updating.Lock()
	defer c.updating.Unlock()
	if c.done() {
		return ErrNotRunning
	}
	config := c.lc.Config()
	group, limits := *config.Cgroups, *config.Cgroups.Resources
	config.Cgroups, group.Resources = &group, &limits
	if m := r.Memory; m != nil {
		assign(&limits.Memory, m.Limit)
		assign(&limits.MemoryReservation, m.Reservation)
		assign(&limits.MemorySwap, m.Swap)
	}
	if cpu := r.CPU; cpu != nil {
		assign(&limits.CpuShares, cpu.Shares)
		assign(&limits.CpuQuota, cpu.Quota)
		assign(&limits.CpuPeriod, cpu.Period)
		limits.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(limits.CpuShares)
		if cpu.Cpus != "" {
			limits.CpusetCpus = cpu.Cpus
		}
		if cpu.Mems != "" {
			limits.CpusetMems = cpu.Mems
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		limits.PidsLimit = r.Pids.Limit
	}
	if len(r.HugepageLimits) > 0 {
		limits.HugetlbLimit = nil
		for _, h := range r.HugepageLimits {
			limits.HugetlbLimit = append(limits.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
		}
	}
	if err := c.lc.Set(config); err != nil {
		return fmt.Errorf("limiting container %s: %w", c.id, err)
	}
	return nil
}

// assign sets a value that is given.
func assign[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// OOM returns a channel with an element for each time that the kernel ran out of
// the container's memory; some that come together are one. It is closed when the
// container has no processes any more, with cgroups of version 1 when its cgroup is
// removed. The caller receives until then. ErrNotRunning means that the first process
// has ended.
func (c *Container) OOM() (<-chan struct{}, error) {
	if c.done() {
		return nil, ErrNotRunning // the cgroup's end would not be told any more
	}
	events, err := c.lc.NotifyOOM()
	if err != nil {
		return nil, fmt.Errorf("watching the memory of container %s: %w", c.id, err)
	}
	return c.allOOM(events), nil
}

// allOOM adds the one event that libcontainer can miss. The kernel holds the second
// notification of a file back for 10 ms (cgroup_file_notify), so the news that nobody
// is left may come before that of the kill, and libcontainer stops listening.
func (c *Container) allOOM(events <-chan struct{}) <-chan struct{} {
	all := make(chan struct{})
	go func() {
		defer close(all)
		told := false
		for range events {
			told = true
			all <- struct{}{}
		}
		<-c.exited
		if !told && c.ranOut {
			all <- struct{}{}
		}
	}()
	return all
}
