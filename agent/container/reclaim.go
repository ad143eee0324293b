// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// Reclaim ends the containers that another process left behind in this Runtime's
// directory when it died: their processes are killed, their cgroups and state are
// removed. The caller knows that the other process is gone; their mounts are its own
// affair.
func (rt *Runtime) Reclaim(ctx context.Context) error {
	entries, err := os.ReadDir(rt.state)
	if err != nil {
		return fmt.Errorf("looking for containers of an earlier process: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if err := rt.reclaim(ctx, e.Name()); err != nil {
			errs = append(errs, fmt.Errorf("removing container %s of an earlier process: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (rt *Runtime) reclaim(ctx context.Context, id string) error {
	if err := rt.reserve(id); err != nil {
		return err
	}
	defer rt.release(id)
	group, err := manager.New(&cgroups.Cgroup{Path: rt.group.path(id), Resources: &cgroups.Resources{SkipDevices: true}})
	if err != nil {
		return err
	}
	if err := killGroup(ctx, group); err != nil {
		return err
	}
	if err := group.Destroy(); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(rt.state, id))
}
