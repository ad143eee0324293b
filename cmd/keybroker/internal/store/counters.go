// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// bucketCounters holds the counters of volumes under (workload, volume). A state that was written by an earlier version
// has none: it is made when it is needed.
const bucketCounters = "counters"

// maxCounters of one workload, since its guests make them.
const maxCounters = 1024

// ErrCountersFull says that a workload has maxCounters of them.
var ErrCountersFull = errors.New("too many counters")

// Counter returns the counter of a volume. The error is ErrNotFound when there is none.
func (s *Store) Counter(workload, volume string) (evidence.Counter, error) {
	var c evidence.Counter
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		c, err = s.counter(tx.Bucket([]byte(bucketCounters)), secretKey(workload, volume))
		return err
	})
	if err != nil {
		return evidence.Counter{}, fmt.Errorf("reading counter %s of %s: %w", volume, workload, err)
	}
	return c, nil
}

// counter reads one; a bucket that is not there has none.
func (s *Store) counter(b *bbolt.Bucket, key string) (evidence.Counter, error) {
	if b == nil {
		return evidence.Counter{}, ErrNotFound
	}
	sealed := b.Get([]byte(key))
	if sealed == nil {
		return evidence.Counter{}, ErrNotFound
	}
	raw, err := s.sealer.open(bucketCounters, key, bytes.Clone(sealed))
	if err != nil {
		return evidence.Counter{}, err
	}
	return evidence.ParseCounter(raw)
}

// RaiseCounter makes change.To the counter if it is change.From, where a counter that there is not is the zero
// Generation, and returns what it is afterwards, which tells whether it was done. That the counter is change.To already
// is no change. All of it is one transaction: of any number of calls with the same From one is done.
func (s *Store) RaiseCounter(workload, volume string, change evidence.CounterChange) (evidence.Counter, error) {
	var now evidence.Counter
	err := s.changeCounter(workload, volume, func(c evidence.Counter) evidence.Counter {
		if c.Generation == change.From && change.To.Number > change.From.Number {
			c = evidence.Counter{Generation: change.To}
		}
		now = c
		return c
	})
	if err != nil {
		return evidence.Counter{}, fmt.Errorf("raising counter %s of %s: %w", volume, workload, err)
	}
	return now, nil
}

// ResetCounter lets the next guest say which generation is the last, and makes a counter where there is none.
func (s *Store) ResetCounter(workload, volume string) error {
	err := s.changeCounter(workload, volume, func(c evidence.Counter) evidence.Counter {
		c.Reset = true
		return c
	})
	if err != nil {
		return fmt.Errorf("resetting counter %s of %s: %w", volume, workload, err)
	}
	return nil
}

// changeCounter stores what change makes of a counter; the zero Counter stands for none.
func (s *Store) changeCounter(workload, volume string, change func(evidence.Counter) evidence.Counter) error {
	key := secretKey(workload, volume)
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketCounters))
		if err != nil {
			return err
		}
		old, err := s.counter(b, key)
		missing := errors.Is(err, ErrNotFound)
		if err != nil && !missing {
			return err
		}
		next := change(old)
		if next == old {
			return nil
		}
		if missing {
			n := 0
			if eachSecret(b, workload, func([]byte, []byte) { n++ }); n >= maxCounters {
				return ErrCountersFull
			}
		}
		return b.Put([]byte(key), s.sealer.seal(bucketCounters, key, next.Encode()))
	})
}

// Counters returns a workload's counters, sorted by volume.
func (s *Store) Counters(workload string) ([]owner.Counter, error) {
	list := []owner.Counter{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		var errs []error
		b := tx.Bucket([]byte(bucketCounters))
		eachSecret(b, workload, func(k, _ []byte) {
			c, err := s.counter(b, string(k))
			errs = append(errs, err)
			list = append(list, owner.Counter{Volume: string(k[len(workload)+1:]), Generation: c.Number, Reset: c.Reset})
		})
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, fmt.Errorf("listing counters of %s: %w", workload, err)
	}
	return list, nil
}
