// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
)

// Key returns the private key stored under name, or stores what generate returns and
// returns that. The caller clears it.
func (s *Store) Key(name string, generate func() ([]byte, error)) ([]byte, error) {
	key, err := s.get(bucketKeys, name)
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	if key, err = generate(); err != nil {
		return nil, fmt.Errorf("generating key %s: %w", name, err)
	}
	if _, err := s.put(bucketKeys, name, key); err != nil {
		clear(key)
		return nil, fmt.Errorf("storing key %s: %w", name, err)
	}
	return key, nil
}
