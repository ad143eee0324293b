// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

type tokenText struct {
	mu    sync.Mutex
	token string
	err   error
}

func (s *tokenText) Token(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.token), s.err
}

func (s *tokenText) set(token string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.err = token, err
}

func mustKey(t *testing.T, c *Cache, uri string) []byte {
	t.Helper()
	key, err := c.Key(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCacheLivesAsLongAsTheToken(t *testing.T) {
	want := bytes.Repeat([]byte{7}, KEKBytes)
	keys, tokens := oneKey(want), &tokenText{token: "one"}
	c := NewCache(keys, tokens)
	for range 5 {
		key := mustKey(t, c, testKeyID)
		if !bytes.Equal(key, want) {
			t.Fatalf("got %x, want %x", key, want)
		}
		clear(key) // the caller's copy; the cache must not notice
	}
	if n := keys.calls(); n != 1 {
		t.Errorf("%d fetches under one token, want 1", n)
	}
	kept := c.entries[0].key
	tokens.set("two", nil)
	mustKey(t, c, testKeyID)
	if n := keys.calls(); n != 2 {
		t.Errorf("%d fetches under two tokens, want 2", n)
	}
	if !bytes.Equal(kept, make([]byte, KEKBytes)) {
		t.Error("the key of the ended token is still in memory")
	}
}

// lentToken keeps hold of the token that it handed out.
type lentToken struct{ last []byte }

func (l *lentToken) Token(context.Context) ([]byte, error) {
	l.last = []byte("a token with which anybody on the way spends what is released once")
	return l.last, nil
}

// A token is asked for at every unwrapped layer. None of them stays in memory for whoever reads it later.
func TestCacheClearsTheToken(t *testing.T) {
	keys, tokens := oneKey(make([]byte, KEKBytes)), new(lentToken)
	c := NewCache(keys, tokens)
	for _, state := range []string{"fetched", "kept"} {
		mustKey(t, c, testKeyID)
		if !bytes.Equal(tokens.last, make([]byte, len(tokens.last))) {
			t.Errorf("key %s: the token is still in memory", state)
		}
	}
}

func TestCacheForgetsWhenThereIsNoToken(t *testing.T) {
	keys, tokens := oneKey(make([]byte, KEKBytes)), &tokenText{token: "one"}
	c := NewCache(keys, tokens)
	mustKey(t, c, testKeyID)
	denied := errors.New("denied")
	tokens.set("", denied)
	if key, err := c.Key(t.Context(), testKeyID); !errors.Is(err, denied) {
		t.Errorf("got %x, %v, want %v", key, err, denied)
	}
	if len(c.entries) != 0 {
		t.Error("keys stay in memory without a token")
	}
}

func TestCacheKeepsNoFailure(t *testing.T) {
	keys := &keyMap{keys: map[string][]byte{}}
	c := NewCache(keys, &tokenText{})
	if _, err := c.Key(t.Context(), testKeyID); !errors.Is(err, errNoKey) {
		t.Fatalf("got %v, want %v", err, errNoKey)
	}
	keys.keys[testKeyID] = make([]byte, KEKBytes)
	mustKey(t, c, testKeyID)
}

func TestCacheIsBounded(t *testing.T) {
	keys := &keyMap{keys: map[string][]byte{}}
	uri := func(i int) string { return fmt.Sprintf("kbs:///a/b/%d", i) }
	for i := range maxCachedKeys + 3 {
		keys.keys[uri(i)] = bytes.Repeat([]byte{byte(i)}, KEKBytes)
	}
	c := NewCache(keys, &tokenText{})
	for i := range maxCachedKeys + 3 {
		mustKey(t, c, uri(i))
	}
	if n := len(c.entries); n != maxCachedKeys {
		t.Errorf("%d keys kept, want %d", n, maxCachedKeys)
	}
	before := keys.calls()
	mustKey(t, c, uri(maxCachedKeys+2)) // the newest is kept
	if n := keys.calls() - before; n != 0 {
		t.Errorf("%d fetches for the newest key, want 0", n)
	}
	key := mustKey(t, c, uri(0)) // the oldest is gone
	if n := keys.calls() - before; n != 1 || key[0] != 0 {
		t.Errorf("%d fetches for the oldest key, want 1", n)
	}
}

func TestCacheManyCallers(t *testing.T) {
	want := bytes.Repeat([]byte{7}, KEKBytes)
	tokens := &tokenText{token: "one"}
	c := NewCache(oneKey(want), tokens)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 200 {
				if i == 0 && j%20 == 0 {
					tokens.set(fmt.Sprint(j), nil)
				}
				key, err := c.Key(t.Context(), testKeyID)
				if err != nil || !bytes.Equal(key, want) {
					t.Errorf("got %x, %v, want %x", key, err, want)
					return
				}
				clear(key)
			}
		})
	}
	wg.Wait()
}
