// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/cmd/internal/version"
)

// notSetUp is what the host reads when a boot step failed; which one is in the code.
const notSetUp = "the guest could not be set up"

// runAgent serves the kata API as a service of another init. Health is answered at once;
// the rest is refused until initdata and its policy are accepted, or for good when they
// are not.
func runAgent(ctx context.Context, args []string) error {
	var listen string
	o, _, err := parse(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&listen, "listen", agent.DefaultAddress, "vsock://CID:PORT or unix:///PATH")
	})
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
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
		if err := openDoor(ctx, o, door, p.images); err != nil {
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

// boot is the life of the machine's first process, which does not return while the
// machine runs. Whatever fails, the machine stays up in a named state, answers Health
// and refuses the rest with that name; it never ends in a shell.
func boot(ctx context.Context) {
	console := guest.NewConsole(os.Stderr)
	// Libraries log through logrus, and quote what the host has sent: the console is
	// the host's to read.
	logrus.SetOutput(io.Discard)
	door := new(agent.Door)
	report, err := guest.Boot()
	for _, s := range report.Steps {
		console.Print("step", s.Name+" "+s.Took.Round(100*time.Microsecond).String())
	}
	for _, name := range report.Absent {
		console.Print("absent", name)
	}
	if !report.Lockdown {
		console.Print("absent", "the kernel's lockdown: root could read kernel memory")
	}
	state, text := "ready", "controllers "+strings.Join(report.Controllers, " ")
	if failed, ok := errors.AsType[*guest.StepError](err); ok {
		door.Park(agent.Reason{Code: failed.Code(), Phrase: notSetUp})
		console.Print("failed", err.Error())
		state, text = "parked", failed.Code()+": "+notSetUp
	}
	reaper := container.NewReaper(nil)
	go func() {
		if err := reaper.Run(ctx); err != nil {
			console.Print("failed", err.Error())
		}
	}()
	serveTests(ctx, console, reaper)

	server, l, err := openAgent(ctx, agent.DefaultAddress, door, nil, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if err == nil {
		console.Print(state, text)
		err = server.Serve(ctx, l)
	}
	if err != nil {
		console.Print("failed", err.Error())
	}
	console.Park(ctx, "serve", "the sandbox API cannot be served")
}
