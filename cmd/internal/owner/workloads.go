// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"context"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
)

// Workload is one line of the list of workloads.
type Workload struct {
	ID          string         `json:"id"`
	Description string         `json:"description,omitempty"`
	TEEs        []evidence.TEE `json:"tees"`
	TestRoots   bool           `json:"test_roots,omitempty"`
	Secrets     int            `json:"secrets"`
}

// WorkloadList is the answer to a list request, sorted by id.
type WorkloadList struct {
	Workloads []Workload `json:"workloads"`
}

// Registered is the answer to a registration.
type Registered struct {
	ID string `json:"id"`
	// Created is false when the registration replaced an earlier one.
	Created bool `json:"created"`
}

// Register stores r in place of any earlier registration of its id. Secrets of the
// workload stay. It reports whether the workload is new.
func (c *Client) Register(ctx context.Context, r Registration) (created bool, err error) {
	if err := r.Validate(); err != nil {
		return false, err
	}
	body, err := r.JSON()
	if err != nil {
		return false, err
	}
	var answer Registered
	if err := c.call(ctx, http.MethodPut, "workloads/"+r.ID, body, &answer); err != nil {
		return false, fmt.Errorf("registering workload %s: %w", r.ID, err)
	}
	return answer.Created, nil
}

// Workload returns the registration of id. The error is ErrNotFound when there is none.
func (c *Client) Workload(ctx context.Context, id string) (Registration, error) {
	if err := CheckID(id); err != nil {
		return Registration{}, err
	}
	var r Registration
	if err := c.call(ctx, http.MethodGet, "workloads/"+id, nil, &r); err != nil {
		return Registration{}, fmt.Errorf("fetching workload %s: %w", id, err)
	}
	return r, nil
}

// Workloads returns what is registered, sorted by id.
func (c *Client) Workloads(ctx context.Context) ([]Workload, error) {
	var list WorkloadList
	if err := c.call(ctx, http.MethodGet, "workloads", nil, &list); err != nil {
		return nil, fmt.Errorf("listing workloads: %w", err)
	}
	return list.Workloads, nil
}

// Unregister removes a workload with all its secrets. The error is ErrNotFound when
// there is neither.
func (c *Client) Unregister(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodDelete, "workloads/"+id, nil, nil); err != nil {
		return fmt.Errorf("removing workload %s: %w", id, err)
	}
	return nil
}
