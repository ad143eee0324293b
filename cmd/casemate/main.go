// SPDX-License-Identifier: Apache-2.0

// Casemate is the program inside a confidential VM: it proves what the VM is,
// gets keys released for exactly that, pulls and opens images with them, and runs
// their containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
)

// Exit codes: what was asked for was done; it was refused or failed; it was not
// understood.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// verb is one subcommand.
type verb struct {
	name, args, help string
	run              func(context.Context, []string) error
}

// errUsage marks a command line that was not understood.
var errUsage = errors.New("wrong usage")

// exitStatus is the exit code of the container that a verb ran.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("the container ended with status %d", int(e)) }

func main() {
	container.Init() // does not return in a container's first process
	// Modes are what the code says. Under a service manager's 0077 a container's root would be closed to its users.
	syscall.Umask(0o022)
	if isPause() {
		pause()
	}
	if err := guest.CleanStart(); err != nil {
		guest.NewConsole(os.Stderr).Park(context.Background(), "boot-start", notSetUp)
	}
	if guest.First() {
		enterRoot(context.Background())
		boot(context.Background())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The main goroutine is tied to the main thread by now, which makes each of its
	// waits a switch of threads: the work is done beside it.
	done := make(chan int)
	go func() { done <- start(ctx, os.Args, os.Stderr) }()
	code := <-done
	stop()
	os.Exit(code)
}

// start goes by the name that the program was started under: the names of
// guest-components' daemons mean that daemon, anything else means a verb.
func start(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) == 0 {
		return dispatch(ctx, nil, stderr)
	}
	if d, ok := daemons()[filepath.Base(args[0])]; ok {
		return d.report(stderr, d.run(ctx, args[1:]))
	}
	return dispatch(ctx, args[1:], stderr)
}

func dispatch(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if asksHelp(args[0]) {
		usage(os.Stdout)
		return exitDone
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			return report(stderr, v, v.run(ctx, args[1:]))
		}
	}
	fmt.Fprintf(stderr, "casemate: unknown verb %q\n", args[0])
	usage(stderr)
	return exitUsage
}

func report(stderr io.Writer, v verb, err error) int {
	status, ended := errors.AsType[exitStatus](err)
	help, asked := errors.AsType[helpRequest](err)
	switch {
	case err == nil:
		return exitDone
	case asked:
		help.print(os.Stdout, v)
		return exitDone
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "casemate %s: %v\nusage: casemate %s %s\nMore: casemate %s --help\n", v.name, err, v.name, v.args, v.name)
		return exitUsage
	case ended:
		return int(status)
	default:
		fmt.Fprintf(stderr, "casemate %s: %v\n", v.name, err)
		return exitFailed
	}
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: casemate VERB [flags] [arguments]")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %-28s %s\n", v.name, v.args, v.help)
	}
}

func verbs() []verb {
	return []verb{
		{"run", "[--config F] [--layer DEV]… IMAGE [-- CMD…]", "attest, get the keys, pull, verify, open and run an image", runRun},
		{"pull", "[--config F] IMAGE DIR", "the same without running it: layers and an OCI bundle in DIR", runPull},
		{"evidence", "[--data FILE]", "print evidence bound to data, in the domain of workloads", runEvidence},
		{"token", "", "print the relying party's attestation token", runToken},
		{"get", "URI", "write a secret of the relying party to standard output", runGet},
		{"unseal", "", "verify and open the sealed secret on standard input", runUnseal},
		{"agent", "[--listen ADDRESS]", "serve the kata agent API; as PID 1 boot the guest first", runAgent},
		{"verity", "check|open|close …", "check, map or unmap a device by its pinned hash tree", runVerity},
		{"timeline", "[--timeline F]", "print what this guest waited for since it booted", runTimeline},
		{"explain", "attestation|policy|timeline …", "print why the last handshake or request was denied, and what took how long", runExplain},
		{"doctor", "[PLATFORM]", "print what proves firmware, kernel, agent and initdata here, and who signs it", runDoctor},
		{"volume", "create|open|close …", "make, map or unmap an encrypted volume that configuration names", runVolume},
		{"disk", "run [--tty] DEV", "attest, unlock a confidential-workload disk and run its program", runDisk},
		{"serve", "", "serve the key provider, the attestation agent, the data hub, REST and containers as configured", runServe},
		{"ps", "[--json]", "list the containers of casemate serve", runPS},
		{"logs", "[--follow] NAME", "print the end of a container's output", runLogs},
		{"stop", "NAME", "end a container and keep it down", runStop},
		{"version", "", "print the version", runVersion},
	}
}
