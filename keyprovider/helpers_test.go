// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"testing"
)

const testKeyID = "kbs:///default/image-kek/1"

var errNoKey = errors.New("no such key")

// keyMap is a KeySource that counts its calls and remembers what it handed out.
type keyMap struct {
	mu    sync.Mutex
	keys  map[string][]byte
	given [][]byte
}

func (m *keyMap) Key(_ context.Context, uri string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, ok := m.keys[uri]
	if !ok {
		return nil, errNoKey
	}
	key = bytes.Clone(key)
	m.given = append(m.given, key)
	return key, nil
}

func (m *keyMap) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.given)
}

func oneKey(kek []byte) *keyMap {
	return &keyMap{keys: map[string][]byte{testKeyID: kek}}
}

// vectors are testdata/vectors.json, which vectors.py wrote.
type vectors struct {
	kek     []byte
	options []byte
	packets map[string]json.RawMessage
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := vectors{packets: map[string]json.RawMessage{}}
	if err := json.Unmarshal(raw, &v.packets); err != nil {
		t.Fatal(err)
	}
	var kek, options string
	for name, into := range map[string]*string{"kek": &kek, "options": &options} {
		if err := json.Unmarshal(v.packets[name], into); err != nil {
			t.Fatal(err)
		}
		delete(v.packets, name)
	}
	v.options = []byte(options)
	if v.kek, err = hex.DecodeString(kek); err != nil {
		t.Fatal(err)
	}
	return v
}
