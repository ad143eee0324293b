// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/internal/version"
)

// notSetUp is what the host reads when a boot step failed; which one is in the code.
const notSetUp = "the guest could not be set up"

// boot is the life of the machine's first process, which does not return while the
// machine runs. Whatever fails, the machine stays up in a named state, answers Health
// and refuses the rest with that name; it never ends in a shell. When the host has
// destroyed the sandbox the machine is switched off.
func boot(ctx context.Context) {
	console := guest.NewConsole(os.Stderr)
	// Libraries log through logrus, and quote what the host has sent: the console is
	// the host's to read.
	logrus.SetOutput(io.Discard)
	log := slog.New(consoleLog{console})
	door := new(agent.Door)
	state, text := setUp(console, door)
	reaper := container.NewReaper(nil)
	go func() {
		if err := reaper.Run(ctx); err != nil {
			console.Print("failed", err.Error())
		}
	}()
	go tidy(ctx)
	serveTests(ctx, console, reaper)
	openShell(ctx, console, reaper)
	if state == "ready" && isBare(config.DefaultPath) {
		console.Print(state, text)
		(&bare{console, bootSource(console, log), reaper}).live(ctx)
		return
	}

	life, destroyed := context.WithCancel(ctx)
	defer destroyed()
	var p *podParts
	var handlers map[string]ttrpc.Method
	if state == "ready" {
		var err error
		if p, err = openPod(podConfig{init: true, reaper: reaper, shutdown: destroyed, log: log}); err != nil {
			door.Park(agent.Reason{Code: "boot-pod", Phrase: notSetUp})
			console.Print("failed", err.Error())
			state, text = "parked", "boot-pod: "+notSetUp
		} else {
			handlers = consoleSteps{console}.requests(p.service.Handlers())
		}
	}
	server, l, err := openAgent(life, agent.DefaultAddress, door, handlers, log)
	if err == nil {
		console.Print(state, text)
		if p != nil {
			go openBootDoor(life, console, log, door, p)
		}
		err = server.Serve(life, l)
	}
	if err != nil {
		console.Print("failed", err.Error())
		console.Park(ctx, "serve", "the sandbox API cannot be served")
		return
	}
	leave(ctx, console, p)
}

// setUp takes the machine over and says what it found. It returns the state to report
// once the API is served, "ready" or, with the door parked, "parked".
func setUp(console *guest.Console, door *agent.Door) (state, text string) {
	report, err := guest.Boot()
	for _, s := range report.Steps {
		console.Print("step", s.String())
	}
	timeline{defaultTimeline}.boot(report.Steps)
	for _, name := range report.Absent {
		console.Print("absent", name)
	}
	if !report.Lockdown {
		console.Print("absent", "the kernel's lockdown: root could read kernel memory")
	}
	if failed, ok := errors.AsType[*guest.StepError](err); ok {
		door.Park(agent.Reason{Code: failed.Code(), Phrase: notSetUp})
		console.Print("failed", err.Error())
		return "parked", failed.Code() + ": " + notSetUp
	}
	if err := raiseClock(console, version.Date()); err != nil {
		door.Park(agent.Reason{Code: "boot-clock", Phrase: notSetUp})
		console.Print("failed", err.Error())
		return "parked", "boot-clock: " + notSetUp
	}
	return "ready", "controllers " + strings.Join(report.Controllers, " ")
}

// raiseClock keeps the clock, which the host has set, from being behind a time that has
// certainly come: the release's date, and the relying party's time of each token.
func raiseClock(console *guest.Console, floor time.Time) error {
	raised, err := guest.RaiseClock(floor)
	if raised {
		console.Print("clock", "the host's time was behind "+floor.UTC().Format(time.RFC3339))
	}
	return err
}

// openBootDoor opens the door as the measured configuration says. An image without
// one serves nobody: its door stays closed. What fails here tells of the measured
// image, of initdata and of the report, which the host has made or can read.
func openBootDoor(ctx context.Context, console *guest.Console, log *slog.Logger, door *agent.Door, p *podParts) {
	if _, err := os.Lstat(config.DefaultPath); errors.Is(err, fs.ErrNotExist) {
		console.Print("absent", config.DefaultPath+": the door stays closed")
		return
	}
	m, err := openDoor(ctx, bootSource(console, log), door, p)
	if m != nil {
		for _, w := range m.conf.Weaknesses() {
			console.Print("weak", w)
		}
	}
	if failed, ok := errors.AsType[*doorError](err); ok {
		console.Print("failed", err.Error())
		console.Print("parked", failed.reason.String())
		return
	}
	if size := p.scratch.size(); size > 0 {
		console.Print("scratch", fmt.Sprintf("%d MiB for layers and what containers write", size>>20))
	}
	console.Print("open", "initdata and its policy were accepted")
}

// bootSource is the measured configuration, with the console to tell of what is done.
func bootSource(console *guest.Console, log *slog.Logger) source {
	src := source{config: config.DefaultPath, steps: steps{consoleSteps{console}, timeline{defaultTimeline}}, log: log, disks: guest.Disks}
	src.clock = func(at time.Time) {
		if err := raiseClock(console, at); err != nil {
			console.Print("failed", err.Error())
		}
	}
	return src
}

// leave ends what is left of the pod and switches the machine off.
func leave(ctx context.Context, console *guest.Console, p *podParts) {
	console.Print("leaving", "the host has destroyed the sandbox")
	if p != nil {
		if err := p.close(); err != nil {
			console.Print("failed", "to end the pod in order")
		}
	}
	if err := guest.PowerOff(); err != nil {
		console.Print("failed", err.Error())
	}
	console.Park(ctx, "poweroff", "the machine cannot be switched off")
}
