// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/internal/version"
	"github.com/casemate/casemate/keyprovider"
)

// Where guest-components' daemons listen unless told otherwise.
const (
	agentSocket = "unix:///run/confidential-containers/attestation-agent/attestation-agent.sock"
	hubSocket   = "unix:///run/confidential-containers/cdh.sock"
	restAddress = "127.0.0.1:8006"
)

// daemon is what this program is when it is started under the name of one of
// guest-components' daemons, by a kata-agent that knows nothing of casemate.
type daemon struct {
	name, flags string
	run         func(context.Context, []string) error
}

func daemons() map[string]daemon {
	list := map[string]daemon{}
	for _, d := range []daemon{
		{"attestation-agent", "[-a|--attestation_sock unix:///PATH] [-c|--config-file FILE] [-t|--initdata-toml FILE | -i|--initdata-digest BASE64] [-V|--version]", runAttestationAgent},
		{"confidential-data-hub", "[-c FILE]", runDataHub},
		{"api-server-rest", "[-b|--bind HOST:PORT] [-f|--features resource|attestation|all] [-c|--cdh_addr unix:///PATH] [-a|--aa_addr unix:///PATH]", runREST},
	} {
		list[d.name] = d
	}
	return list
}

// report is what the daemons of guest-components do: 0 for help, 2 for a command line
// that was not understood, 1 for everything else.
func (d daemon) report(stderr io.Writer, err error) int {
	usage := fmt.Sprintf("usage: %s %s", d.name, d.flags)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, usage)
		return exitDone
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "%s: %v\n%s\n", d.name, err, usage)
		return exitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", d.name, err)
	return exitFailed
}

// parseDaemon reads flags; each text flag is given with its spellings.
func parseDaemon(args []string, texts map[*string][]string, flags map[*bool][]string) error {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for value, names := range texts {
		for _, name := range names {
			set.StringVar(value, name, *value, "")
		}
	}
	for value, names := range flags {
		for _, name := range names {
			set.BoolVar(value, name, *value, "")
		}
	}
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return flag.ErrHelp
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("%w: got %d arguments", errUsage, set.NArg())
	}
	return nil
}

// runAttestationAgent is attestation-agent.
func runAttestationAgent(ctx context.Context, args []string) error {
	s := stockSettings("aa.toml")
	address, digest, ask := agentSocket, "", false
	err := parseDaemon(args, map[*string][]string{
		&address: {"a", "attestation_sock"}, &s.file: {"c", "config-file"},
		&digest: {"i", "initdata-digest"}, &s.document: {"t", "initdata-toml"},
	}, map[*bool][]string{&ask: {"V", "version"}})
	if err != nil {
		return err
	}
	if ask {
		_, err := fmt.Fprintf(os.Stdout, "attestation-agent %s (casemate)\n", version.Number)
		return err
	}
	if !strings.HasPrefix(address, "unix://") {
		return fmt.Errorf("--attestation_sock %q: want unix:///PATH", address)
	}
	if digest != "" && s.document == "" { // a document outranks a digest, as upstream
		if s.digest, err = base64.StdEncoding.Strict().DecodeString(digest); err != nil || len(s.digest) == 0 {
			return errors.New("--initdata-digest: want padded base64")
		}
	}
	m := newMachine()
	if err := m.openStock(ctx, s); err != nil {
		return err
	}
	return m.serveAgent(ctx, address)
}

func (m *machine) serveAgent(ctx context.Context, address string) error {
	agent, stop, err := m.agent()
	if err != nil {
		return err
	}
	defer stop()
	return m.serveParts(ctx, []part{{"attestation agent", address, agent.Serve}})
}

// runDataHub is confidential-data-hub. It attests at the first secret that is asked
// for, with a handshake of its own: it needs no attestation-agent beside it.
func runDataHub(ctx context.Context, args []string) error {
	s := stockSettings("cdh.toml")
	if err := parseDaemon(args, map[*string][]string{&s.file: {"c"}}, nil); err != nil {
		return err
	}
	m := newMachine()
	if err := m.openStock(ctx, s); err != nil {
		return err
	}
	return m.serveHub(ctx, hubSocket)
}

func (m *machine) serveHub(ctx context.Context, address string) (err error) {
	defer m.tellUntil(ctx)(&err)
	var client *kbs.Client
	var keys keyprovider.KeySource = noKBS{}
	if m.conf.KBS.URL != "" {
		var err error
		if client, err = m.relyingParty(); err != nil {
			return err
		}
		defer client.Close()
		cache := keyprovider.NewCache(client, client)
		defer cache.Clear()
		keys = cache
	}
	h, end, err := m.hub(client, keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	leases, err := m.writeCredentials(ctx, h.Resources, config.CredentialDir)
	if err != nil {
		return err
	}
	return m.serveParts(ctx, []part{{"data hub", address, h.Serve}}, leases.renew)
}

// noKBS stands where no KBS is configured: images that need no key are pulled all the
// same, so the data hub starts.
type noKBS struct{}

// Key refuses.
func (noKBS) Key(context.Context, string) ([]byte, error) {
	return nil, errors.New("no KBS is configured: kbs.url, or kbc.url in cdh.toml")
}

// runREST is api-server-rest: it asks the other two daemons on their sockets.
func runREST(ctx context.Context, args []string) error {
	bind, features, hub, agent := restAddress, "resource", hubSocket, agentSocket
	err := parseDaemon(args, map[*string][]string{
		&bind: {"b", "bind"}, &features: {"f", "features"}, &hub: {"c", "cdh_addr"}, &agent: {"a", "aa_addr"},
	}, nil)
	if err != nil {
		return err
	}
	m := newMachine()
	if err := m.openStock(ctx, stockSettings("")); err != nil {
		return err
	}
	return m.serveREST(ctx, bind, features, hub, agent)
}

func (m *machine) serveREST(ctx context.Context, bind, features, hub, agent string) error {
	rest := &services.REST{Paths: m.conf.Services.RESTResources, Token: m.conf.Services.RESTToken, Version: version.Number, Log: m.log}
	if features != "resource" && features != "attestation" && features != "all" {
		return fmt.Errorf("--features %q: want resource, attestation or all", features)
	}
	if strings.HasPrefix(bind, "unix:") {
		return fmt.Errorf("--bind %q: want a loopback HOST:PORT", bind)
	}
	if features != "attestation" {
		peer, err := services.NewPeer(hub)
		if err != nil {
			return fmt.Errorf("--cdh_addr: %w", err)
		}
		defer peer.Close()
		rest.Resources = &services.RemoteHub{Peer: peer}
	}
	if features != "resource" {
		peer, err := services.NewPeer(agent)
		if err != nil {
			return fmt.Errorf("--aa_addr: %w", err)
		}
		defer peer.Close()
		rest.Agent = &services.RemoteAgent{Peer: peer}
	}
	return m.serveParts(ctx, []part{{"REST", bind, rest.Serve}})
}
