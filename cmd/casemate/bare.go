// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/network"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
)

const (
	// firstAsk is the pause before a relying party that did not answer is asked again; each further one is twice as long,
	// up to maxAsk.
	firstAsk = time.Second
	maxAsk   = time.Minute
)

// bare is a guest that sets up its own network and runs the containers of its configuration. Nobody outside starts
// anything in it: the kata API is not served, and what the host can do is to switch the machine off.
type bare struct {
	console *guest.Console
	src     source
	reaper  *container.Reaper
}

// isBare asks the measured configuration. One that cannot be read makes a guest that serves nobody, as any other.
func isBare(path string) bool {
	conf, err := config.Load(path)
	return err == nil && conf.Network.Mode != ""
}

// live is the life of a bare guest's first process. Whatever fails, the machine stays up in a named state until it is
// switched off, by the host's power button or a signal.
func (b *bare) live(ctx context.Context) {
	life, end := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer end()
	go func() {
		if err := guest.AwaitPowerButton(life); err == nil {
			end()
		} else if life.Err() == nil {
			b.console.Print("absent", "the power button: "+err.Error())
		}
	}()
	err := b.run(life)
	if life.Err() == nil {
		b.park(err)
		<-life.Done()
	} else if err != nil {
		b.console.Print("failed", "to end the containers in order")
	}
	b.console.Print("leaving", "the machine is switched off")
	if err := guest.PowerOff(); err != nil {
		b.console.Print("failed", err.Error())
	}
	b.console.Park(ctx, "poweroff", "the machine cannot be switched off")
}

// park names the state. Of an error that knows no code nothing is told: it may quote the relying party.
func (b *bare) park(err error) {
	reason := agent.Reason{Code: "serve", Phrase: "what the guest's configuration declares cannot be served"}
	if known, ok := errors.AsType[*doorError](err); ok {
		b.console.Print("failed", known.Error())
		reason = known.reason
	} else if failed, ok := errors.AsType[*attestError](err); ok {
		reason = failed.reason
	}
	b.console.Print("parked", reason.String())
}

// run goes from the measured configuration to containers that run, and returns when they have ended with ctx. Its error
// says then what could not be undone, and before that what could not be done.
func (b *bare) run(ctx context.Context) (err error) {
	m, err := b.src.open(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, errNoTEE) {
		return &doorError{agent.Reason{Code: "tee", Phrase: wrongTEE}, err}
	}
	if err != nil {
		return &doorError{agent.Reason{Code: "initdata", Phrase: notAccepted}, err}
	}
	m.reaper, m.seen = b.reaper, b.container
	defer m.tellUntil(ctx)(&err)
	for _, w := range m.conf.Weaknesses() {
		b.console.Print("weak", w)
	}
	if err := m.runnable(); err != nil {
		return &doorError{agent.Reason{Code: "initdata", Phrase: notAccepted}, err}
	}
	if err := m.serveScratch(ctx); err != nil {
		return &doorError{agent.Reason{Code: "scratch", Phrase: noScratch}, ofStage(stageScratch, m.conf.Scratch.Device, err)}
	}
	defer func() { err = errors.Join(err, m.scratch.close()) }()
	if size := m.scratch.size(); size > 0 {
		b.console.Print("scratch", fmt.Sprintf("%d MiB for layers and what containers write", size>>20))
	}
	keeper, err := b.network(ctx, m)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return &doorError{agent.Reason{Code: "network", Phrase: "the network cannot be set up as configured"}, err}
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		keeper.Keep(inner)
		return nil
	})
	group.Go(func() error {
		client, err := b.attest(inner, m)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		return m.serve(inner, client, b.src.config)
	})
	return group.Wait()
}

// runnable refuses configuration that can run nothing, while it can still be said why.
func (m *machine) runnable() error {
	if len(m.conf.Containers) == 0 {
		return errors.New("no [[container]] is declared, and with [network] nothing else starts one")
	}
	return m.conf.CheckContainerVolumes()
}

func (b *bare) network(ctx context.Context, m *machine) (keeper *network.Keeper, err error) {
	err = m.steps.do("network", func() error {
		conf, err := networkConfig(m.conf.Network)
		if err == nil {
			keeper, err = network.Up(ctx, conf, b.waits)
		}
		return err
	})
	if err == nil {
		b.console.Print("network", keeper.Address())
	}
	return keeper, err
}

// waits tells what the network waits for. What a DHCP server said is the host's own.
func (b *bare) waits(w network.Wait) {
	if w.Err != nil {
		b.console.Print("failed", w.Err.Error())
	}
	b.console.Print("waiting", w.Code+": "+w.Phrase)
}

func networkConfig(n config.Network) (c network.Config, err error) {
	c = network.Config{Interface: n.Interface, DHCP: n.Mode == config.NetworkDHCP, SLAAC: n.SLAAC}
	if c.Static.Address, c.Static.Gateway, err = n.Static(); err != nil {
		return c, err
	}
	c.DNS, err = n.Servers()
	return c, err
}

// attest goes on asking a relying party that does not answer: a network that has just come up may lead nowhere yet. An
// answer, or one from somebody else, is final.
func (b *bare) attest(ctx context.Context, m *machine) (*kbs.Client, error) {
	for pause := firstAsk; ; pause = min(2*pause, maxAsk) {
		client, err := m.attested(ctx)
		if err == nil {
			return client, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		err = &attestError{attestReason(err), err}
		if !errors.Is(err, kbs.ErrUnavailable) {
			return nil, err
		}
		if pause == firstAsk {
			b.console.Print("waiting", attestReason(err).String())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// container tells that one has begun or ended: its name, which the host has read in configuration, and a fixed word.
// Output, exit status and errors stay in the guest.
func (b *bare) container(name string, s standalone.State) {
	b.console.Print("container", name+" "+string(s))
}
