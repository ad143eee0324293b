// SPDX-License-Identifier: Apache-2.0

// Casemate-build is the tool of a workload's owner: it encrypts and signs
// images, wraps layer keys for other tools, writes initdata, and computes what guests
// will report.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
