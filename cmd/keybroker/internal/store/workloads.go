// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/casemate/casemate/cmd/internal/owner"
)

// PutWorkload stores r, which is valid, in place of any earlier registration of its
// id. It reports whether there was none.
func (s *Store) PutWorkload(r owner.Registration) (created bool, err error) {
	body, err := r.JSON()
	if err != nil {
		return false, err
	}
	created, err = s.put(bucketWorkloads, r.ID, body)
	if err != nil {
		return false, fmt.Errorf("storing workload %s: %w", r.ID, err)
	}
	return created, nil
}

// Workload returns the registration of id. The error is ErrNotFound when there is none.
func (s *Store) Workload(id string) (owner.Registration, error) {
	body, err := s.get(bucketWorkloads, id)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading workload %s: %w", id, err)
	}
	r, err := owner.ParseStored(body)
	if err != nil {
		return owner.Registration{}, fmt.Errorf("reading workload %s: %w", id, err)
	}
	return r, nil
}

// Workloads returns all registrations, sorted by id.
func (s *Store) Workloads() ([]owner.Workload, error) {
	var list []owner.Workload
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketWorkloads)).ForEach(func(k, sealed []byte) error {
			body, err := s.sealer.open(bucketWorkloads, string(k), sealed)
			if err != nil {
				return fmt.Errorf("workload %s: %w", k, err)
			}
			r, err := owner.ParseStored(body)
			if err != nil {
				return err
			}
			n := 0
			for _, name := range secretBuckets {
				eachSecret(tx.Bucket([]byte(name)), r.ID, func([]byte, []byte) { n++ })
			}
			list = append(list, owner.Workload{ID: r.ID, Description: r.Description, TEEs: r.TEEs, TestRoots: r.TestRoots, Secrets: n})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing workloads: %w", err)
	}
	return list, nil
}

// DeleteWorkload removes the registration of id and every secret and counter under it,
// all or none. The error is ErrNotFound when there is neither.
func (s *Store) DeleteWorkload(id string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		workloads := tx.Bucket([]byte(bucketWorkloads))
		found := workloads.Get([]byte(id)) != nil
		errs := []error{workloads.Delete([]byte(id))}
		for _, name := range append([]string{bucketCounters}, secretBuckets...) {
			b := tx.Bucket([]byte(name))
			var doomed [][]byte
			eachSecret(b, id, func(k, _ []byte) { doomed = append(doomed, bytes.Clone(k)) })
			for _, k := range doomed {
				found = true
				errs = append(errs, b.Delete(k))
			}
		}
		if !found {
			return ErrNotFound
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("removing workload %s: %w", id, err)
	}
	return nil
}
