// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/cmd/internal/version"
)

// runAgent serves the kata API as a service of another init. Health is answered at once;
// the rest is refused until initdata and its policy are accepted, or for good when they
// are not.
func runAgent(ctx context.Context, args []string) error {
	var listen string
	o, _, err := parseGuest(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&listen, "listen", agent.DefaultAddress, "vsock://CID:PORT or unix:///PATH")
	})
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go tidy(ctx)
	p, err := openPod(podConfig{shutdown: stop, log: log})
	if err != nil {
		return err
	}
	door := new(agent.Door)
	server, l, err := openAgent(ctx, listen, door, p.service.Handlers(), log)
	if err != nil {
		return errors.Join(err, p.close())
	}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		src := o.source()
		src.disks = guest.Disks
		if _, err := openDoor(ctx, src, door, p); err != nil {
			fmt.Fprintf(os.Stderr, "casemate agent: %v\n", err)
		}
	}()
	err = server.Serve(ctx, l)
	<-opened // it ends with ctx, and before that is not long
	return errors.Join(err, p.close())
}

// openAgent prepares the server. handlers may be nil: then nothing is served but
// Health.
func openAgent(ctx context.Context, listen string, door *agent.Door, handlers map[string]ttrpc.Method, log *slog.Logger) (*agent.Server, net.Listener, error) {
	server, err := agent.NewServer(agent.Config{Version: version.Number, Door: door, Log: log, Handlers: handlers})
	if err != nil {
		return nil, nil, err
	}
	address, err := agent.ParseAddress(listen)
	if err != nil {
		return nil, nil, err
	}
	l, err := address.Listen(ctx)
	return server, l, err
}
