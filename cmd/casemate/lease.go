// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// retryShare is the part of a lease after which a relying party that did not answer is
// asked again; renewals are due after half a lease.
const retryShare = 10

// lease is one credential with a lease. The file holds what the relying party last
// released, and exists only while it was confirmed less than a lease ago, counted on the
// monotonic clock.
type lease struct {
	config.Credential
	name      string            // below the directory
	sum       [sha256.Size]byte // of what the file holds
	present   bool
	confirmed time.Time
	due       time.Time
}

// leases renews credentials; renew is its only user.
type leases struct {
	m       *machine
	secrets services.Resources
	dir     string
	list    []*lease
}

// newLeases takes over the credentials with a lease that writeCredentials has just written
// below dir; sums are of what it wrote, by path.
func (m *machine) newLeases(secrets services.Resources, dir string, sums map[string][sha256.Size]byte) *leases {
	l := &leases{m: m, secrets: secrets, dir: dir}
	now := time.Now()
	for _, c := range m.conf.Credentials {
		if c.Lease > 0 {
			l.list = append(l.list, &lease{
				Credential: c, name: strings.TrimPrefix(c.Path, config.CredentialDir+"/"), sum: sums[c.Path], present: true,
				confirmed: now, due: now.Add(c.Lease / 2),
			})
		}
	}
	return l
}

// renew keeps the files current until ctx is done.
func (l *leases) renew(ctx context.Context) error {
	for len(l.list) > 0 {
		next := l.list[0]
		for _, c := range l.list[1:] {
			if c.due.Before(next.due) {
				next = c
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next.due)):
		}
		l.settle(ctx, next)
	}
	return nil
}

// settle asks for one secret and makes the file agree with the answer: swapped in one
// step where the secret is another, gone where the relying party refuses it or has not
// confirmed it for a lease.
func (l *leases) settle(ctx context.Context, c *lease) {
	asked := time.Now()
	ctx, stop := context.WithDeadline(ctx, c.deadline(asked))
	secret, err := l.secrets.Key(ctx, c.ResourceURI)
	defer clear(secret)
	stop()
	if err == nil {
		if err = l.put(c, secret); err == nil {
			c.confirmed, c.due = asked, asked.Add(c.Lease/2)
			return
		}
	}
	now := time.Now()
	c.due = now.Add(c.Lease / retryShare)
	refused := errors.Is(err, kbs.ErrDenied) || errors.Is(err, kbs.ErrNotFound)
	if refused {
		c.due = now.Add(c.Lease / 2)
	}
	if !c.present {
		return // said when it went
	}
	switch {
	case refused:
		l.remove(c, fmt.Errorf("the relying party no longer releases it: %w", err))
	case now.Sub(c.confirmed) >= c.Lease:
		l.remove(c, fmt.Errorf("its lease of %s ended: %w", c.Lease, err))
	default:
		c.due = earlier(c.due, c.confirmed.Add(c.Lease))
		l.m.log.Warn("renewing a credential", "path", c.Path, "error", err)
	}
}

// deadline bounds a request so that the file does not outlive its lease.
func (c *lease) deadline(asked time.Time) time.Time {
	end := c.confirmed.Add(c.Lease)
	if least := asked.Add(c.Lease / retryShare); end.Before(least) {
		return least
	}
	return end
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// put writes the secret unless the file holds it already. Whoever has the old file open
// reads the old secret to its end; nobody reads half of each.
func (l *leases) put(c *lease, secret []byte) error {
	sum := sha256.Sum256(secret)
	if c.present && sum == c.sum {
		return nil
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := writeCredential(root, c.name, secret); err != nil {
		return err
	}
	c.sum, c.present = sum, true
	l.m.steps.say("credential %s changed at the relying party and was replaced", c.Path)
	return nil
}

func (l *leases) remove(c *lease, why error) {
	root, err := os.OpenRoot(l.dir)
	if err == nil {
		if err = root.Remove(c.name); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		err = errors.Join(err, root.Close())
	}
	if err != nil { // it stays due and is removed the next time
		l.m.log.Error("removing a credential", "path", c.Path, "error", err)
		return
	}
	c.present = false
	l.m.log.Warn("credential removed", "path", c.Path, "error", why)
}
