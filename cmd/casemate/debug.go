// SPDX-License-Identifier: Apache-2.0

//go:build debug

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
)

// debugShell is where rootfs --debug puts the owner's busybox.
const debugShell = "/bin/sh"

// shellPause keeps a shell that does not start from filling the console.
const shellPause = time.Second

// openShell gives the console, which is the host's, a shell for as long as the machine
// runs. The image with it measures differently, and keybroker refuses it unless the
// workload says debug (security.md 17).
func openShell(ctx context.Context, console *guest.Console, reaper *container.Reaper) {
	console.Print("DEBUG BUILD", "whoever holds this console has a shell in this guest")
	go func() {
		for ctx.Err() == nil {
			if err := shell(ctx, reaper); err != nil {
				console.Print("debug", "the shell ended: "+err.Error())
			}
			select {
			case <-time.After(shellPause):
			case <-ctx.Done():
			}
		}
	}()
}

func shell(ctx context.Context, reaper *container.Reaper) error {
	terminal, err := os.OpenFile("/dev/console", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, debugShell)
	cmd.Env = []string{"PATH=/bin:/usr/bin", "HOME=/root", "PS1=debug# ", "TERM=linux"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	return errors.Join(reaper.Command(cmd), terminal.Close())
}

// freeRequests are those by which a host starts programs in a container and talks to them.
var freeRequests = []string{
	"ExecProcessRequest", "ReadStreamRequest", "WriteStreamRequest", "CloseStdinRequest", "TtyWinResizeRequest",
	"SignalProcessRequest", "WaitProcessRequest",
}

// freeExec lets those through and leaves everything else to the tenant's policy.
type freeExec struct{ agent.Policy }

func debugPolicy(p agent.Policy) agent.Policy { return freeExec{p} }

func (f freeExec) Allow(ctx context.Context, request string, msg proto.Message) error {
	if slices.Contains(freeRequests, request) {
		return nil
	}
	return f.Policy.Allow(ctx, request, msg)
}

// Decide is the tenant's decision where it has one to make.
func (f freeExec) Decide(ctx context.Context, request string, msg proto.Message) (agent.Decision, error) {
	if slices.Contains(freeRequests, request) {
		return settled{}, nil
	}
	if d, ok := f.Policy.(agent.Decider); ok {
		return d.Decide(ctx, request, msg)
	}
	return settled{}, f.Policy.Allow(ctx, request, msg)
}

// settled is a decision that changed nothing.
type settled struct{}

func (settled) Begun() {}
func (settled) Undo()  {}

// checkDebug wants initdata that says what this guest is: a relying party reads it there.
func (m *machine) checkDebug() error {
	if m.initdata != nil && !m.conf.Debug {
		return errors.New("checking initdata: this is a debug guest, which takes only initdata with debug = true in casemate.toml")
	}
	return nil
}
