// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// bucketOnce holds secrets that are released once. A state that was written by an earlier version has none: it is made
// when it is needed.
const bucketOnce = "once"

// secretBuckets is both places of a workload's secrets; a path is in one of them.
var secretBuckets = []string{bucketSecrets, bucketOnce}

// PutSecretOnce is PutSecret for a value that TakeSecret gives out a single time.
func (s *Store) PutSecretOnce(workload, path string, value []byte) (created bool, err error) {
	return s.putSecret(bucketOnce, workload, path, value)
}

// putSecret stores in one bucket and removes from the other.
func (s *Store) putSecret(bucket, workload, path string, value []byte) (created bool, err error) {
	key := secretKey(workload, path)
	sealed := s.sealer.seal(bucket, key, value)
	err = s.db.Update(func(tx *bbolt.Tx) error {
		created = true
		for _, name := range secretBuckets {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			created = created && b.Get([]byte(key)) == nil
			if name == bucket {
				err = b.Put([]byte(key), sealed)
			} else {
				err = b.Delete([]byte(key))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("storing secret %s of %s: %w", path, workload, err)
	}
	return created, nil
}

// TakeSecret returns a secret that is released once, and removes it in the same transaction: of any number of calls one
// gets it, whatever happens afterwards. The caller clears it. The error is ErrNotFound when there is none, or none any
// more.
func (s *Store) TakeSecret(workload, path string) ([]byte, error) {
	key := secretKey(workload, path)
	var value []byte
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketOnce))
		if b == nil {
			return ErrNotFound
		}
		sealed := b.Get([]byte(key))
		if sealed == nil {
			return ErrNotFound
		}
		var err error
		if value, err = s.sealer.open(bucketOnce, key, bytes.Clone(sealed)); err != nil {
			return err
		}
		return b.Delete([]byte(key))
	})
	if err != nil {
		clear(value)
		return nil, fmt.Errorf("taking secret %s of %s: %w", path, workload, err)
	}
	return value, nil
}
