// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent/guest"
)

// consoleSteps is where the first process tells its steps: on the console, with their times.
// Names are this program's own.
type consoleSteps struct{ console *guest.Console }

func (t consoleSteps) step(name string, started time.Time) {
	t.console.Print("step", guest.NewStep(name, started).String())
}

// Write drops what else is told of a step: it may repeat what the relying party said,
// and the console is the host's to read.
func (consoleSteps) Write(p []byte) (int, error) { return len(p), nil }

// requests tells of the requests by which the host brings the network up, once each has
// been served: images and the relying party can be reached from then on.
func (t consoleSteps) requests(methods map[string]ttrpc.Method) map[string]ttrpc.Method {
	for method, name := range map[string]string{"UpdateInterface": "network interface", "UpdateRoutes": "network routes"} {
		serve := methods[method]
		methods[method] = func(ctx context.Context, unmarshal func(any) error) (any, error) {
			started := time.Now()
			answer, err := serve(ctx, unmarshal)
			if err == nil {
				t.step(name, started)
			}
			return answer, err
		}
	}
	return methods
}
