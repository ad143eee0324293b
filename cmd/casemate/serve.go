// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/internal/version"
	"github.com/casemate/casemate/keyprovider"
)

// part is one thing that serve serves.
type part struct {
	name, address string
	serve         func(context.Context, net.Listener) error
}

// runServe serves the guest's sockets for other tools until it is asked to end: the
// ocicrypt key provider that skopeo, containerd and podman call, and what
// guest-components' three daemons serve. Beside them it runs the declared containers.
func runServe(ctx context.Context, args []string) (err error) {
	o, _, err := parseGuest(args, 0, 0, nil)
	if err != nil {
		return err
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	if m.conf.Network.Mode != "" {
		return errOwnNetwork
	}
	go tidy(ctx)
	defer m.tellUntil(ctx)(&err)
	if err := m.serveScratch(ctx); err != nil {
		return ofStage(stageScratch, m.conf.Scratch.Device, err)
	}
	defer func() { err = errors.Join(err, m.scratch.close()) }()
	client, err := m.attested(ctx)
	if err != nil {
		return err
	}
	return m.serve(ctx, client, o.config)
}

// serve serves what configuration names, and runs the declared containers, until ctx ends. client is nil where no KBS is
// configured; file is the measured configuration, for errors.
func (m *machine) serve(ctx context.Context, client *kbs.Client, file string) (err error) {
	if client == nil {
		return m.serveContainers(ctx, file)
	}
	keys := keyprovider.NewCache(client, client)
	defer keys.Clear()
	agent, stop, err := m.agent()
	if err != nil {
		return err
	}
	defer stop()
	hub, end, err := m.hub(client, keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	leases, err := m.writeCredentials(ctx, hub.Resources, config.CredentialDir)
	if err != nil {
		return err
	}
	parts := m.parts(client, keys, agent, hub)
	if len(m.conf.Containers) > 0 {
		fleet, err := m.newFleet(client, keys, hub.Sealed)
		if err != nil {
			return err
		}
		parts = append(parts, fleet.part())
	}
	if len(parts) == 0 {
		return fmt.Errorf("nothing to serve: keyprovider.listen, an address of services or a container must be set in %s", file)
	}
	return m.serveParts(ctx, parts, leases.renew)
}

// serveScratch opens scratch where it is configured. Declared containers that a killed process has left would hold the old one.
func (m *machine) serveScratch(ctx context.Context) error {
	if m.conf.Scratch == (config.Scratch{}) {
		return nil
	}
	if err := m.scratch.own(); err != nil {
		return err
	}
	if err := m.reclaimFleet(ctx); err != nil {
		return errors.Join(err, m.scratch.close())
	}
	return m.scratch.open(ctx, m)
}

// serveContainers runs the declared containers of a guest that has no relying party:
// what needs a key from one fails.
func (m *machine) serveContainers(ctx context.Context, file string) error {
	if len(m.conf.Containers) == 0 {
		return fmt.Errorf("nothing to serve: no KBS and no container is configured in %s", file)
	}
	if others := m.parts(nil, nil, nil, &services.Hub{}); len(others) > 0 {
		return fmt.Errorf("serving the %s: no KBS is configured in %s", others[0].name, file)
	}
	sealed, err := m.unsealer(noKBS{})
	if err != nil {
		return err
	}
	fleet, err := m.newFleet(nil, nil, sealed)
	if err != nil {
		return err
	}
	return m.serveParts(ctx, []part{fleet.part()})
}

// parts lists what configuration gives an address. Layer keys are cached as long as
// the token; other secrets are fetched each time, under one session.
func (m *machine) parts(client *kbs.Client, keys keyprovider.KeySource, agent *services.Agent, hub *services.Hub) []part {
	rest := &services.REST{Paths: m.conf.Services.RESTResources, Token: m.conf.Services.RESTToken, Version: version.Number, Log: m.log}
	if f := m.conf.Services.RESTFeatures; f == "attestation" || f == "all" {
		rest.Agent = agent
	}
	if m.conf.Services.RESTFeatures != "attestation" {
		rest.Resources = client
	}
	all := []part{
		{"key provider", m.conf.KeyProvider.Listen, func(ctx context.Context, l net.Listener) error {
			return keyprovider.Serve(ctx, l, m.unwrap(keys), m.log)
		}},
		{"attestation agent", m.conf.Services.AttestationAgent, agent.Serve},
		{"data hub", m.conf.Services.DataHub, hub.Serve},
		{"REST", m.conf.Services.REST, rest.Serve},
	}
	var served []part
	for _, p := range all {
		if p.address != "" {
			served = append(served, p)
		}
	}
	return served
}

func (m *machine) unwrap(keys keyprovider.KeySource) *keyprovider.UnwrapService {
	return &keyprovider.UnwrapService{Unwrapper: &keyprovider.Unwrapper{Keys: keys}, Log: m.log}
}

// hub is the data hub over client, nil where no KBS is configured, with keys for layers.
// The caller calls end when nobody asks the hub any more.
func (m *machine) hub(client *kbs.Client, keys keyprovider.KeySource) (hub *services.Hub, end func() error, err error) {
	var secrets keyprovider.KeySource = noKBS{}
	if client != nil {
		secrets = client
	}
	sealed, err := m.unsealer(secrets)
	if err != nil {
		return nil, nil, err
	}
	images, mounts := &hubImages{m: m, client: client, keys: keys}, &hubMounts{m: m, keys: volumeKeys{secrets, sealed}}
	end = func() error { return errors.Join(images.Close(), mounts.Close()) }
	return &services.Hub{Resources: secrets, Sealed: toldUnsealer{m, sealed}, LayerKeys: m.unwrap(keys), Images: images, Mounts: mounts, Log: m.log}, end, nil
}

// agent is the attestation agent with what measured configuration adds to it. The
// caller calls stop when nobody asks it any more.
func (m *machine) agent() (_ *services.Agent, stop func(), err error) {
	a := &services.Agent{Evidence: m.attester, Raw: m.conf.Services.RawEvidence, Log: m.log}
	for _, d := range m.devices {
		a.Devices = append(a.Devices, d)
	}
	if m.events != nil {
		a.Events = m.events
	}
	var opened []func()
	stop = func() {
		for _, f := range opened {
			f()
		}
	}
	if m.conf.CoCoAS.URL != "" {
		service, err := m.attestationService()
		if err != nil {
			return nil, nil, fmt.Errorf("coco_as: %w", err)
		}
		a.Attested, opened = service, append(opened, service.Close)
	}
	if m.conf.Services.GetToken {
		c, err := m.kbsConfig()
		if err != nil {
			return nil, nil, fmt.Errorf("services.get_token: %w", err)
		}
		tokens, err := kbs.NewExporter(c)
		if err != nil {
			return nil, nil, fmt.Errorf("services.get_token: %w", err)
		}
		a.Tokens, opened = tokens, append(opened, tokens.Close)
	}
	return a, stop, nil
}

func (m *machine) attestationService() (*kbs.AttestationService, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(m.conf.CoCoAS.Cert)) {
		return nil, errors.New("reading coco_as.cert: want a PEM certificate")
	}
	return kbs.NewAttestationService(kbs.Config{URL: m.conf.CoCoAS.URL, Roots: roots, Attester: m.attester, InitData: m.initdata, Log: m.log})
}

// serveParts opens every socket before it serves one: a socket that is taken ends the
// start with one error that names all of them, and nothing is half up. What runs beside the
// parts ends with them.
func (m *machine) serveParts(ctx context.Context, parts []part, beside ...func(context.Context) error) error {
	var listeners []net.Listener
	var failures []error
	for _, p := range parts {
		l, err := listen(ctx, p.address)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		listeners = append(listeners, l)
	}
	if err := errors.Join(failures...); err != nil {
		for _, l := range listeners {
			_ = l.Close() // nobody was served on it
		}
		return fmt.Errorf("opening the sockets: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range parts {
		m.steps.say("%s on %s", p.name, p.address)
		group.Go(func() error { return p.serve(ctx, listeners[i]) })
	}
	for _, run := range beside {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// listen opens address and, for a socket file, makes its folder.
func listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok && filepath.IsAbs(path) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
	}
	return keyprovider.Listen(ctx, address)
}
