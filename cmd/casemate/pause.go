// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// pauseProgram is this program's place in a pod's pause container, whose root holds
// nothing else (package pod).
const pauseProgram = "/pause"

// isPause asks the kernel, not argv[0]: as the first process of a namespace this
// program starts over with a name of its own.
func isPause() bool {
	self, err := os.Readlink("/proc/self/exe")
	return err == nil && self == pauseProgram
}

// pause waits to be ended and collects the orphans of a shared PID namespace.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)
	for s := range signals {
		if s != unix.SIGCHLD {
			os.Exit(exitDone)
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}
