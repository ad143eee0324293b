// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
)

// MaxSecretSize is what a guest takes in one answer.
const MaxSecretSize = evidence.MaxSecretSize

// Secret describes one secret. Its value never leaves by this API.
type Secret struct {
	// Path is REPOSITORY/TYPE/TAG, which a guest names as kbs:///REPOSITORY/TYPE/TAG.
	Path string `json:"path"`
	// Size is the length of the value in bytes.
	Size int `json:"size"`
	// Once says that the secret is released a single time and is gone then.
	Once bool `json:"once,omitempty"`
}

// OnceQuery is the query of a request to store a secret that is released once.
const OnceQuery = "once=true"

// SecretList is the answer to a list request, sorted by path.
type SecretList struct {
	Secrets []Secret `json:"secrets"`
}

// Stored is the answer to storing a secret.
type Stored struct {
	Secret
	// Registered is false while the workload has no registration yet, so that nobody
	// can be given the secret.
	Registered bool `json:"registered"`
}

// PutSecret stores value for the workload under path REPOSITORY/TYPE/TAG, in place of
// any earlier value. The workload may be registered later, Stored says so. The value
// is not kept; the caller clears it.
func (c *Client) PutSecret(ctx context.Context, workload, path string, value []byte) (Stored, error) {
	return c.putSecret(ctx, workload, path, "", value)
}

// PutSecretOnce is PutSecret for a value that one guest gets, once.
func (c *Client) PutSecretOnce(ctx context.Context, workload, path string, value []byte) (Stored, error) {
	return c.putSecret(ctx, workload, path, "?"+OnceQuery, value)
}

func (c *Client) putSecret(ctx context.Context, workload, path, query string, value []byte) (Stored, error) {
	if err := checkSecretName(workload, path); err != nil {
		return Stored{}, err
	}
	if len(value) == 0 || len(value) > MaxSecretSize {
		return Stored{}, fmt.Errorf("secret %s of %s is %d bytes, want 1 to %d", path, workload, len(value), MaxSecretSize)
	}
	var answer Stored
	if err := c.call(ctx, http.MethodPut, "workloads/"+workload+"/secrets/"+path+query, value, &answer); err != nil {
		return Stored{}, fmt.Errorf("storing secret %s of %s: %w", path, workload, err)
	}
	return answer, nil
}

// DeleteSecret removes one secret. The error is ErrNotFound when there is none.
func (c *Client) DeleteSecret(ctx context.Context, workload, path string) error {
	if err := checkSecretName(workload, path); err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodDelete, "workloads/"+workload+"/secrets/"+path, nil, nil); err != nil {
		return fmt.Errorf("removing secret %s of %s: %w", path, workload, err)
	}
	return nil
}

// Secrets returns the names and sizes of a workload's secrets, sorted by path.
func (c *Client) Secrets(ctx context.Context, workload string) ([]Secret, error) {
	if err := CheckID(workload); err != nil {
		return nil, err
	}
	var list SecretList
	if err := c.call(ctx, http.MethodGet, "workloads/"+workload+"/secrets", nil, &list); err != nil {
		return nil, fmt.Errorf("listing secrets of %s: %w", workload, err)
	}
	return list.Secrets, nil
}

func checkSecretName(workload, path string) error {
	return errors.Join(CheckID(workload), CheckPath(path))
}
