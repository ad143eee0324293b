// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

func TestCredentials(t *testing.T) {
	broker := kbstest.Start()
	defer broker.Close()
	broker.Put("app/a/1", []byte("secret a"))
	broker.Put("app/b/1", []byte("secret b"))
	client, err := kbs.New(kbs.Config{URL: broker.URL, AllowPlainHTTP: true, Attester: sampleTEE{}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	dir := filepath.Join(t.TempDir(), "kbs")
	write := func(list ...config.Credential) error {
		_, err := testMachine(config.Measured{Credentials: list}).writeCredentials(t.Context(), client, dir)
		return err
	}
	files := func() map[string]string {
		found := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
			found[strings.TrimPrefix(path, dir+"/")] = string(raw)
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return found
	}
	a := config.Credential{ResourceURI: "kbs:///app/a/1", Path: config.CredentialDir + "/a"}
	b := config.Credential{ResourceURI: "kbs:///app/b/1", Path: config.CredentialDir + "/x/y/b"}
	if err := write(); err != nil || len(files()) > 0 {
		t.Errorf("none are wanted: %v, %v", err, files())
	}
	gone := config.Credential{ResourceURI: "kbs:///app/gone/1", Path: config.CredentialDir + "/c"}
	if err := write(a, b, gone); err == nil || !strings.Contains(err.Error(), gone.Path) || len(files()) > 0 {
		t.Errorf("one is not to be had: %v, %v", err, files())
	}
	for range 2 { // the second time over what is there
		if err := write(a, b); err != nil {
			t.Fatal(err)
		}
		if got := files(); len(got) != 2 || got["a"] != "secret a" || got["x/y/b"] != "secret b" {
			t.Errorf("got %v", got)
		}
	}
	// A link that leads out of the place.
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := write(config.Credential{ResourceURI: "kbs:///app/a/1", Path: config.CredentialDir + "/link/a"}); err == nil {
		t.Error("written through a link")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside are %v, %v", left, err)
	}
	m := testMachine(config.Measured{Credentials: []config.Credential{a}})
	if _, err := m.writeCredentials(t.Context(), noKBS{}, dir); err == nil || !strings.Contains(err.Error(), "no KBS is configured") {
		t.Errorf("without a KBS: %v", err)
	}
}
