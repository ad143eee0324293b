// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

const (
	dbName = "state.db"

	// lockTimeout is how long another keybroker on the same state may take to end.
	lockTimeout = 2 * time.Second

	bucketMeta      = "meta"
	bucketWorkloads = "workloads"
	bucketSecrets   = "secrets"
	bucketKeys      = "keys"

	// checkKey holds checkValue, which opens only under the key that made the state.
	checkKey   = "check"
	checkValue = "casemate keybroker state 1"
)

// ErrNotFound says that nothing is stored under the name asked for.
var ErrNotFound = errors.New("not found")

// Store is an open state directory. It is safe for concurrent use.
type Store struct {
	db     *bbolt.DB
	sealer sealer
}

// Open opens the state in dir, making dir (0700) and an empty state when there is
// none. It fails when another process has it open, when others may read dir, and when
// masterKey is not the one that made the state. The caller clears masterKey, which is
// not kept, and closes the Store.
func Open(dir string, masterKey []byte) (*Store, error) {
	if err := EnsureDir(dir); err != nil {
		return nil, err
	}
	s, err := newSealer(masterKey)
	if err != nil {
		return nil, fmt.Errorf("opening state %s: %w", dir, err)
	}
	name := filepath.Join(dir, dbName)
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("opening state %s: another keybroker has it open", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening state %s: %w", name, err)
	}
	st := &Store{db: db, sealer: s}
	if err := st.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening state %s: %w", dir, err), db.Close())
	}
	return st, nil
}

// EnsureDir makes dir with mode 0700, or checks that nobody else may read it.
func EnsureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("opening state directory: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("state directory %s has mode %#o, want it closed to group and others", dir, info.Mode().Perm())
	}
	return nil
}

// prepare makes the buckets of a new state, or proves that the key fits an old one.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		if meta != nil {
			return s.check(meta)
		}
		for _, name := range []string{bucketMeta, bucketWorkloads, bucketSecrets, bucketKeys} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		sealed := s.sealer.seal(bucketMeta, checkKey, []byte(checkValue))
		return tx.Bucket([]byte(bucketMeta)).Put([]byte(checkKey), sealed)
	})
}

func (s *Store) check(meta *bbolt.Bucket) error {
	value, err := s.sealer.open(bucketMeta, checkKey, meta.Get([]byte(checkKey)))
	if err != nil {
		return errors.New("the seal key is not the one that this state was written with")
	}
	if !bytes.Equal(value, []byte(checkValue)) {
		return fmt.Errorf("state has format %q, want %q", value, checkValue)
	}
	return nil
}

// Close releases the state for other processes.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing state: %w", err)
	}
	return nil
}

// get opens one value. The error is ErrNotFound when there is none.
func (s *Store) get(bucket, key string) ([]byte, error) {
	var value []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		sealed := tx.Bucket([]byte(bucket)).Get([]byte(key))
		if sealed == nil {
			return ErrNotFound
		}
		var err error
		value, err = s.sealer.open(bucket, key, sealed)
		return err
	})
	return value, err
}

// put seals one value and reports whether the name is new.
func (s *Store) put(bucket, key string, value []byte) (created bool, err error) {
	sealed := s.sealer.seal(bucket, key, value)
	err = s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		created = b.Get([]byte(key)) == nil
		return b.Put([]byte(key), sealed)
	})
	return created, err
}
