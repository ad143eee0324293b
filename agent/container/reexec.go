// SPDX-License-Identifier: Apache-2.0

package container

import (
	"runtime"

	"golang.org/x/sys/unix"

	_ "github.com/casemate/casemate/agent/container/reexec" // this program as a container's init
)

// Init must be the first call of main, and of TestMain in packages that create
// containers. It ties the main goroutine to the main thread. Creating a container
// takes a thread into the container's mount namespace and then lets it end. The main
// thread cannot end: it would stay there for good, keep the container's mounts
// alive, and show them to everything that reads /proc/self. What main does itself
// is therefore slow to switch to; work belongs into other goroutines.
func Init() {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() { // called too late, there is nothing to hold
		runtime.UnlockOSThread()
	}
}
