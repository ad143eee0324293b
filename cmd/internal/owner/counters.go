// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Counter is what a keybroker keeps of a volume, so that a guest notices an older image of its disk.
type Counter struct {
	Volume     string `json:"volume"`
	Generation uint64 `json:"generation"`
	// Reset says that the next guest decides which generation is the last.
	Reset bool `json:"reset,omitempty"`
}

// CounterList is the answer to a list request, sorted by volume.
type CounterList struct {
	Counters []Counter `json:"counters"`
}

// CheckVolume returns an error unless name can name a volume: the form is that of a workload's id.
func CheckVolume(name string) error {
	if len(name) == 0 || len(name) > MaxIDSize || !idPattern.MatchString(name) {
		return fmt.Errorf("volume %.64q: want 1 to %d lower-case letters, digits, '.', '_' and '-', the first a letter or digit", name, MaxIDSize)
	}
	return nil
}

// Counters returns the counters of a workload's volumes.
func (c *Client) Counters(ctx context.Context, workload string) ([]Counter, error) {
	if err := CheckID(workload); err != nil {
		return nil, err
	}
	var list CounterList
	if err := c.call(ctx, http.MethodGet, "workloads/"+workload+"/counters", nil, &list); err != nil {
		return nil, fmt.Errorf("listing counters of %s: %w", workload, err)
	}
	return list.Counters, nil
}

// ResetCounter lets the next guest that opens the volume take whatever its disk says for the last generation, once: after
// a backup was put back on purpose, or where a keybroker's own state was lost.
func (c *Client) ResetCounter(ctx context.Context, workload, volume string) error {
	if err := errors.Join(CheckID(workload), CheckVolume(volume)); err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPost, "workloads/"+workload+"/counters/"+volume+"/reset", nil, nil); err != nil {
		return fmt.Errorf("resetting counter %s of %s: %w", volume, workload, err)
	}
	return nil
}
