// SPDX-License-Identifier: Apache-2.0

package container

import "C" // guard.c

import (
	"os"
	"runtime"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the C half of a container's init
	"golang.org/x/sys/unix"
)

// Init must be the first call of main, and of TestMain in packages that create
// containers. A container's first process is this same program started again as
// `/proc/self/exe init`: there Init becomes the container's init and does not
// return. Everywhere else it returns at once and does nothing.
//
// It looks at neither argv[0], which the second start inherits and which may name
// one of the program's other roles, nor at anything but the two signs that only
// Runtime gives: the single argument and the descriptor variables, which guard.c
// has removed by now unless this process' own parent made them.
//
// Init also ties the main goroutine to the main thread. Creating a container takes
// a thread into the container's mount namespace and then lets it end. The main
// thread cannot end: it would stay there for good, keep the container's mounts
// alive, and show them to everything that reads /proc/self. What main does itself
// is therefore slow to switch to; work belongs into other goroutines.
func Init() {
	if len(os.Args) == 2 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		libcontainer.Init()
	}
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() { // called too late, there is nothing to hold
		runtime.UnlockOSThread()
	}
}
