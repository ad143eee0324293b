// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

func newDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testKey() []byte { return bytes.Repeat([]byte{7}, masterKeySize) }

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, testKey())
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func registration(id string) owner.Registration {
	return owner.Registration{
		ID: id, TEEs: []evidence.TEE{evidence.SNP}, InitData: []string{"sha256:" + strings.Repeat("11", 32)},
		SNP: &owner.SNPReference{Measurements: []string{strings.Repeat("22", 48)}, MinimumTCB: map[string]owner.TCB{owner.Milan: {SNP: 1}}},
	}
}

func TestSurvivesReopening(t *testing.T) {
	dir := newDir(t)
	s := open(t, dir)
	created, err := s.PutWorkload(registration("web"))
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if created, err = s.PutWorkload(registration("web")); err != nil || created {
		t.Fatal(created, err)
	}
	for path, value := range map[string]string{"a/b/c": "one", "a/b/d": "\x00\xff"} {
		if created, err = s.PutSecret("web", path, []byte(value)); err != nil || !created {
			t.Fatal(created, err)
		}
	}
	key, err := s.Key("k", func() ([]byte, error) { return []byte("generated"), nil })
	must(t, err)
	must(t, s.Close())

	s = open(t, dir)
	r, err := s.Workload("web")
	if err != nil || !reflect.DeepEqual(r, registration("web")) {
		t.Errorf("workload %+v, %v", r, err)
	}
	secret, err := s.Secret("web", "a/b/d")
	if err != nil || string(secret) != "\x00\xff" {
		t.Errorf("secret %q, %v", secret, err)
	}
	again, err := s.Key("k", func() ([]byte, error) { return nil, errors.New("generated again") })
	if err != nil || !bytes.Equal(again, key) {
		t.Errorf("key %q, %v", again, err)
	}
	list, err := s.Secrets("web")
	if err != nil || !reflect.DeepEqual(list, []owner.Secret{{Path: "a/b/c", Size: 3}, {Path: "a/b/d", Size: 2}}) {
		t.Errorf("secrets %+v, %v", list, err)
	}
	workloads, err := s.Workloads()
	if err != nil || len(workloads) != 1 || workloads[0].Secrets != 2 {
		t.Errorf("workloads %+v, %v", workloads, err)
	}
}

func TestNotFound(t *testing.T) {
	s := open(t, newDir(t))
	_, workload := s.Workload("web")
	_, secret := s.Secret("web", "a/b/c")
	for name, err := range map[string]error{
		"workload": workload, "secret": secret, "delete workload": s.DeleteWorkload("web"), "delete secret": s.DeleteSecret("web", "a/b/c"),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A workload's name is not the beginning of another's.
func TestWorkloadsDoNotShareNames(t *testing.T) {
	s := open(t, newDir(t))
	for _, id := range []string{"web", "web2", "we"} {
		_, err := s.PutSecret(id, "a/b/c", []byte(id))
		must(t, err)
	}
	must(t, s.DeleteWorkload("web"))
	if _, err := s.Secret("web", "a/b/c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the removed workload's secret: %v", err)
	}
	for _, id := range []string{"web2", "we"} {
		if v, err := s.Secret(id, "a/b/c"); err != nil || string(v) != id {
			t.Errorf("%s: %q, %v", id, v, err)
		}
	}
}

func TestNothingIsPlainOnDisk(t *testing.T) {
	dir := newDir(t)
	s := open(t, dir)
	_, err := s.PutWorkload(registration("web"))
	must(t, err)
	_, err = s.PutSecret("web", "a/b/c", []byte("CANARY-SECRET"))
	must(t, err)
	_, err = s.Key("token", func() ([]byte, error) { return []byte("CANARY-KEY"), nil })
	must(t, err)
	must(t, s.Close())
	db, err := os.ReadFile(filepath.Join(dir, dbName))
	must(t, err)
	for _, plain := range []string{"CANARY", strings.Repeat("22", 48), string(testKey())} {
		if bytes.Contains(db, []byte(plain)) {
			t.Errorf("the state has %q in plain", plain)
		}
	}
}

// Whoever can write the database can neither move a value to another name nor change
// one.
func TestSwappedAndChangedValues(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b *bbolt.Bucket, a, other []byte) error
	}{
		{"another workload's secret", func(b *bbolt.Bucket, a, other []byte) error { return b.Put(a, bytes.Clone(b.Get(other))) }},
		{"changed", func(b *bbolt.Bucket, a, _ []byte) error {
			v := bytes.Clone(b.Get(a))
			v[len(v)-1] ^= 1
			return b.Put(a, v)
		}},
		{"cut", func(b *bbolt.Bucket, a, _ []byte) error { return b.Put(a, bytes.Clone(b.Get(a))[:overhead-1]) }},
		{"empty", func(b *bbolt.Bucket, a, _ []byte) error { return b.Put(a, []byte{}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, newDir(t))
			_, err := s.PutSecret("a", "x/y/z", []byte("of a"))
			must(t, err)
			_, err = s.PutSecret("b", "x/y/z", []byte("of b"))
			must(t, err)
			must(t, s.db.Update(func(tx *bbolt.Tx) error {
				return tt.change(tx.Bucket([]byte(bucketSecrets)), []byte(secretKey("a", "x/y/z")), []byte(secretKey("b", "x/y/z")))
			}))
			if v, err := s.Secret("a", "x/y/z"); err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("got %q, %v", v, err)
			}
		})
	}
	// Under one name in two buckets: only the bucket tells them apart.
	t.Run("a key as registration", func(t *testing.T) {
		s := open(t, newDir(t))
		body, err := registration("web").JSON()
		must(t, err)
		_, err = s.Key("web", func() ([]byte, error) { return body, nil })
		must(t, err)
		must(t, s.db.Update(func(tx *bbolt.Tx) error {
			v := bytes.Clone(tx.Bucket([]byte(bucketKeys)).Get([]byte("web")))
			return tx.Bucket([]byte(bucketWorkloads)).Put([]byte("web"), v)
		}))
		if r, err := s.Workload("web"); err == nil {
			t.Errorf("got %+v", r)
		}
	})
}

func TestWrongMasterKey(t *testing.T) {
	dir := newDir(t)
	must(t, open(t, dir).Close())
	_, err := Open(dir, bytes.Repeat([]byte{8}, masterKeySize))
	if err == nil || !strings.Contains(err.Error(), "the seal key is not the one that this state was written with") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(dir, []byte("short")); err == nil {
		t.Error("a short key is taken")
	}
	open(t, dir) // the refusal left it usable
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := newDir(t)
	open(t, dir)
	if _, err := Open(dir, testKey()); err == nil || !strings.Contains(err.Error(), "another keybroker") {
		t.Errorf("got %v", err)
	}
}

func TestOpenDirectory(t *testing.T) {
	dir := newDir(t)
	must(t, os.Chmod(dir, 0o750))
	if _, err := Open(dir, testKey()); err == nil || !strings.Contains(err.Error(), "mode 0750") {
		t.Errorf("got %v", err)
	}
	made := filepath.Join(newDir(t), "deeper", "state")
	must(t, open(t, made).Close())
	info, err := os.Stat(made)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestMasterKeyFile(t *testing.T) {
	dir := newDir(t)
	name := filepath.Join(dir, "seal.key")
	key, created, err := LoadMasterKey(name, dir)
	if err != nil || !created || len(key) != masterKeySize {
		t.Fatal(created, err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, created, err := LoadMasterKey(name, dir)
	if err != nil || created || !bytes.Equal(again, key) {
		t.Errorf("read back: %v, created %v", err, created)
	}
	s, err := Open(dir, key)
	must(t, err)
	must(t, s.Close())
	for _, tt := range []struct{ name, text, want string }{
		{"short", "00", "64 hex digits"},
		{"long", strings.Repeat("0", 66), "64 hex digits"},
		{"not hex", strings.Repeat("g", 64), "64 hex digits"},
		{"empty", "", "64 hex digits"},
	} {
		must(t, os.WriteFile(name, []byte(tt.text), 0o600))
		if _, _, err := LoadMasterKey(name, dir); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	must(t, os.Chmod(name, 0o640))
	if _, _, err := LoadMasterKey(name, dir); err == nil || !strings.Contains(err.Error(), "mode 0640") {
		t.Errorf("open to the group: %v", err)
	}
	must(t, os.Remove(name))
	if _, _, err := LoadMasterKey(name, dir); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("state without its key: %v", err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("a new key was put beside state that it cannot open")
	}
}

func TestConcurrentUse(t *testing.T) {
	s := open(t, newDir(t))
	var wg sync.WaitGroup
	for i := range 4 {
		id := string(rune('a' + i))
		wg.Go(func() {
			for range 8 {
				if _, err := s.PutSecret(id, "x/y/z", []byte(id)); err != nil {
					t.Error(err)
				}
				if v, err := s.Secret(id, "x/y/z"); err != nil || string(v) != id {
					t.Errorf("%q, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}
