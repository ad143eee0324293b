// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// changing is a relying party whose secret and mood change.
type changing struct {
	mu     sync.Mutex
	secret string
	err    error
	hangs  bool
	asked  int
}

func (c *changing) set(secret string, err error, hangs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secret, c.err, c.hangs = secret, err, hangs
}

func (c *changing) Key(ctx context.Context, _ string) ([]byte, error) {
	c.mu.Lock()
	c.asked++
	secret, err, hangs := c.secret, c.err, c.hangs
	c.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []byte(secret), err
}

// TestLeasedCredentials follows a secret through its life at the relying party: changed,
// unreachable, back, revoked, granted again.
func TestLeasedCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 10 * time.Minute
		dir := filepath.Join(t.TempDir(), "kbs")
		source := &changing{secret: "first"}
		m := testMachine(config.Measured{Credentials: []config.Credential{
			{ResourceURI: "kbs:///a/b/c", Path: config.CredentialDir + "/x/leased", Lease: lease},
			{ResourceURI: "kbs:///a/b/c", Path: config.CredentialDir + "/kept"},
		}})
		var log bytes.Buffer
		m.log = slog.New(slog.NewTextHandler(&log, nil))
		m.steps = steps{w: io.Discard}
		leases, err := m.writeCredentials(t.Context(), source, dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- leases.renew(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		want := func(when, text string) {
			t.Helper()
			synctest.Wait()
			got, err := os.ReadFile(filepath.Join(dir, "x/leased"))
			if text == "" && !os.IsNotExist(err) || text != "" && string(got) != text {
				t.Fatalf("%s: got %q, %v, want %q", when, got, err, text)
			}
			if kept, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(kept) != "first" {
				t.Fatalf("%s: the file without a lease has %q, %v", when, kept, err)
			}
		}
		same, err := os.Stat(filepath.Join(dir, "x/leased"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease/2 + time.Second)
		want("confirmed", "first")
		if again, err := os.Stat(filepath.Join(dir, "x/leased")); err != nil || !os.SameFile(same, again) {
			t.Errorf("an unchanged secret was written again: %v", err)
		}

		// A reader that has the old file open is not disturbed, and no other name is left.
		old, err := os.Open(filepath.Join(dir, "x/leased"))
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		source.set("second, and longer", nil, false)
		time.Sleep(lease / 2)
		want("changed", "second, and longer")
		if text, err := io.ReadAll(old); err != nil || string(text) != "first" {
			t.Errorf("an open file now reads %q, %v", text, err)
		}
		if names, err := os.ReadDir(filepath.Join(dir, "x")); err != nil || len(names) != 1 {
			t.Errorf("the folder has %v, %v", names, err)
		}

		// Unreachable: what was confirmed stands to the end of its lease, not longer. A
		// relying party that does not answer at all changes nothing about that.
		source.set("third", fmt.Errorf("canary: %w", kbs.ErrUnavailable), false)
		time.Sleep(lease - 2*time.Minute)
		want("unreachable", "second, and longer")
		source.set("", nil, true)
		time.Sleep(3 * time.Minute)
		want("the lease has ended", "")

		source.set("third", nil, false)
		time.Sleep(lease / 5)
		want("back", "third")

		for _, refusal := range []error{kbs.ErrDenied, kbs.ErrNotFound} {
			source.set("", refusal, false)
			time.Sleep(lease/2 + time.Second)
			want("revoked", "")
			source.set("fourth", nil, false)
			time.Sleep(lease/2 + time.Second)
			want("granted again", "fourth")
		}
		source.mu.Lock()
		if source.asked > 60 {
			t.Errorf("asked %d times", source.asked)
		}
		source.mu.Unlock()
		for _, secret := range []string{"second", "third", "fourth"} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log has a secret: %s", log.String())
			}
		}
	})
}
