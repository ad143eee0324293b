// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"sync"
)

// maxCached bounds the memory of compiled policies, some 100 KiB each.
const maxCached = 256

// Cache compiles each policy text once. It is safe for concurrent use.
type Cache struct {
	mu       sync.Mutex // guards compiled
	compiled map[[sha256.Size]byte]*Policy
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{compiled: make(map[[sha256.Size]byte]*Policy)}
}

// Compile is the function Compile, remembering what compiled.
func (c *Cache) Compile(text string) (*Policy, error) {
	key := sha256.Sum256([]byte(text))
	c.mu.Lock()
	p, ok := c.compiled[key]
	c.mu.Unlock()
	if ok {
		return p, nil
	}
	p, err := Compile(text) // outside the lock: it takes milliseconds
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.compiled) >= maxCached {
		clear(c.compiled)
	}
	c.compiled[key] = p
	return p, nil
}
