// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/agent/network/dhcp"
)

const (
	// cardTime is how long a driver may look for the card before somebody is told.
	cardTime = 5 * time.Second
	// againPause is between two attempts of which the first ended at once.
	againPause = 5 * time.Second
)

// Wait is what the network waits for, or what went wrong with it and is tried again: a stable code and a fixed phrase for
// the host to read. Err says more, in values that are the host's own.
type Wait struct {
	Code, Phrase string
	Err          error
}

// Keeper has the guest's network. Its methods are called one after the other.
type Keeper struct {
	conf     Config
	told     func(Wait)
	card     *card
	resolver resolver
	client   *dhcp.Client
	lease    dhcp.Lease
	now      Settings
}

// Up sets the network up and returns when it is there, or when ctx ends. It never gives up: told is called when
// something is waited for, once for each thing in a row. What configuration states and the kernel refuses is an error.
func Up(ctx context.Context, conf Config, told func(Wait)) (*Keeper, error) {
	return up(ctx, conf, told, resolver{file: resolverFile, place: resolverPlace})
}

func up(ctx context.Context, conf Config, told func(Wait), r resolver) (*Keeper, error) {
	k := &Keeper{conf: conf, resolver: r}
	var last string
	k.told = func(w Wait) {
		if w.Code != "" && w.Code != last {
			told(w)
		}
		last = w.Code
	}
	var err error
	k.card, err = findCard(ctx, conf.Interface, func() {
		k.told(Wait{"network-card", "the machine has no such network card yet", nil})
	})
	if err != nil {
		return nil, err
	}
	if err := k.card.up(conf.SLAAC); err != nil {
		return nil, err
	}
	if !conf.DHCP {
		s := conf.Static
		s.DNS = conf.DNS
		return k, k.set(s)
	}
	at := dhcp.Interface{Name: k.card.name(), Index: k.card.link.Attrs().Index}
	k.client = &dhcp.Client{MAC: k.card.mac, Link: at}
	return k, k.acquire(ctx)
}

// Keep prolongs the lease and asks for another when it ends, until ctx does. Without DHCP it only waits.
func (k *Keeper) Keep(ctx context.Context) {
	if k.client == nil {
		<-ctx.Done()
	}
	for ctx.Err() == nil {
		next, err := k.client.Extend(ctx, k.lease)
		if err == nil {
			if err = k.take(next); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			break
		}
		k.told(Wait{"network-lost", "the address is not the guest's any more", err})
		if err := k.card.clear(); err != nil {
			k.told(waitFor(err))
		}
		k.now = Settings{}
		_ = k.acquire(ctx) // until ctx ends
	}
}

// Address is what the card has, for a line on the console.
func (k *Keeper) Address() string { return fmt.Sprintf("%s %v", k.card.name(), k.now.Address) }

// acquire tries until there is a lease and the card has taken it; its error is that ctx has ended.
func (k *Keeper) acquire(ctx context.Context) error {
	for {
		began := time.Now()
		l, err := k.client.Acquire(ctx)
		if err == nil {
			if err = k.take(l); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.told(waitFor(err))
		if time.Since(began) > againPause {
			continue
		}
		select {
		case <-time.After(againPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitFor names what an attempt ended with.
func waitFor(err error) Wait {
	switch {
	case errors.Is(err, dhcp.ErrRefused):
		return Wait{"network-refused", "what the DHCP server says cannot be taken", err}
	case errors.Is(err, dhcp.ErrNoOffer):
		return Wait{"network-offer", "no DHCP server answers", err}
	case errors.Is(err, dhcp.ErrNoAck), errors.Is(err, dhcp.ErrNak):
		return Wait{"network-ack", "the DHCP server does not confirm its offer", err}
	}
	return Wait{"network-card", "the network card does not do what it should", err}
}

// take sets a lease's settings where they are new.
func (k *Keeper) take(l dhcp.Lease) error {
	if s := k.conf.leased(l); !s.same(k.now) {
		if err := k.set(s); err != nil {
			return err
		}
	}
	k.lease = l
	k.told(Wait{}) // so that the next thing that is waited for is told again
	return nil
}

func (k *Keeper) set(s Settings) error {
	if err := k.card.set(s); err != nil {
		return err
	}
	k.now = s
	return k.resolver.set(s.DNS)
}
