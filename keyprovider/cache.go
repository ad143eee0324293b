// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
)

// maxCachedKeys bounds a Cache: an image is wrapped by one KEK as a rule, and
// the cache need not outgrow the images of one guest.
const maxCachedKeys = 16

// TokenSource reports the attestation token that keys are released under now,
// getting a new one when the last has ended.
type TokenSource interface {
	// Token returns bytes that are the caller's, who clears them.
	Token(ctx context.Context) ([]byte, error)
}

// Cache is a KeySource that keeps the keys of another one for as long as the
// token they were released under is the current one. No clock of its own is
// involved. A key whose release is revoked meanwhile stays until then. At most
// 16 keys are kept. It is safe for concurrent use if both its sources are.
type Cache struct {
	keys   KeySource
	tokens TokenSource

	// mu guards the fields below.
	mu      sync.Mutex
	token   [sha256.Size]byte // of the token that the entries belong to
	entries []cacheEntry      // oldest first
}

type cacheEntry struct {
	uri string
	key []byte
}

// NewCache returns an empty cache before keys. tokens must report the token of
// the same session that keys uses.
func NewCache(keys KeySource, tokens TokenSource) *Cache {
	return &Cache{keys: keys, tokens: tokens}
}

// Key returns a copy of the key that uri names; the caller clears it.
func (c *Cache) Key(ctx context.Context, uri string) ([]byte, error) {
	token, err := c.tokens.Token(ctx)
	defer clear(token)
	if err != nil {
		c.Clear()
		return nil, fmt.Errorf("getting the token for key %s: %w", uri, err)
	}
	session := sha256.Sum256(token)
	if key, ok := c.lookup(session, uri); ok {
		return key, nil
	}
	key, err := c.keys.Key(ctx, uri)
	if err != nil {
		return nil, err
	}
	// A source that attested anew meanwhile released the key under a newer
	// token than the one seen above; the next call then drops the entry,
	// which costs one more fetch.
	c.store(session, uri, key)
	return key, nil
}

// Clear forgets and clears all keys. The cache stays usable.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clearLocked()
}

func (c *Cache) lookup(session [sha256.Size]byte, uri string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != session {
		c.clearLocked()
		c.token = session
	}
	for _, e := range c.entries {
		if e.uri == uri {
			return bytes.Clone(e.key), true
		}
	}
	return nil, false
}

func (c *Cache) store(session [sha256.Size]byte, uri string, key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != session {
		return
	}
	for _, e := range c.entries {
		if e.uri == uri {
			return // two callers fetched at once; the first one's stays
		}
	}
	if len(c.entries) == maxCachedKeys {
		clear(c.entries[0].key)
		c.entries = append(c.entries[:0], c.entries[1:]...)
	}
	c.entries = append(c.entries, cacheEntry{uri: uri, key: bytes.Clone(key)})
}

func (c *Cache) clearLocked() {
	for _, e := range c.entries {
		clear(e.key)
	}
	c.entries = nil
}
