// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/casemate/casemate/cmd/internal/owner"
)

// secretKey joins workload and path. Neither holds a NUL, so no path of one workload
// is a name under another.
func secretKey(workload, path string) string { return workload + "\x00" + path }

// PutSecret stores value in place of any earlier one and reports whether there was
// none. The caller clears value.
func (s *Store) PutSecret(workload, path string, value []byte) (created bool, err error) {
	return s.putSecret(bucketSecrets, workload, path, value)
}

// Secret returns the value under path of workload, which the caller clears. The error
// is ErrNotFound when there is none.
func (s *Store) Secret(workload, path string) ([]byte, error) {
	value, err := s.get(bucketSecrets, secretKey(workload, path))
	if err != nil {
		return nil, fmt.Errorf("reading secret %s of %s: %w", path, workload, err)
	}
	return value, nil
}

// DeleteSecret removes one secret. The error is ErrNotFound when there is none.
func (s *Store) DeleteSecret(workload, path string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		key := []byte(secretKey(workload, path))
		for _, name := range secretBuckets {
			if b := tx.Bucket([]byte(name)); b != nil && b.Get(key) != nil {
				return b.Delete(key)
			}
		}
		return ErrNotFound
	})
	if err != nil {
		return fmt.Errorf("removing secret %s of %s: %w", path, workload, err)
	}
	return nil
}

// Secrets returns the names and sizes of a workload's secrets, sorted by path. It
// opens none of them.
func (s *Store) Secrets(workload string) ([]owner.Secret, error) {
	list := []owner.Secret{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range secretBuckets {
			eachSecret(tx.Bucket([]byte(name)), workload, func(k, sealed []byte) {
				path := string(k[len(workload)+1:])
				list = append(list, owner.Secret{Path: path, Size: len(sealed) - overhead, Once: name == bucketOnce})
			})
		}
		slices.SortFunc(list, func(a, b owner.Secret) int { return strings.Compare(a.Path, b.Path) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing secrets of %s: %w", workload, err)
	}
	return list, nil
}

// eachSecret calls visit with the sealed secrets of one workload in order of path. A bucket that is not there has none.
func eachSecret(b *bbolt.Bucket, workload string, visit func(key, sealed []byte)) {
	if b == nil {
		return
	}
	prefix := []byte(secretKey(workload, ""))
	c := b.Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		visit(k, v)
	}
}
