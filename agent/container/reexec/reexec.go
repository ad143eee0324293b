// SPDX-License-Identifier: Apache-2.0

package reexec

import "C" // guard.c

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the C half of a container's init
)

// A container's first process is this same program started again as `/proc/self/exe
// init`. There init becomes the container's init and does not return; everywhere else
// it does nothing.
//
// It is here and not in main because Go sets packages up by their dependencies and then
// by their names. libcontainer and this package get their turn before the policy engine,
// the registry's client and most others, of which a container's init uses none: what
// they would compute first is more than the init itself takes. For the same reason the
// package imports nothing else.
//
// It looks at neither argv[0], which the second start inherits and which may name one of
// the program's other roles, nor at anything but the two signs that only package
// container gives: the single argument and the descriptor variables, which guard.c has
// removed by now unless this process' own parent made them.
func init() {
	if len(os.Args) == 2 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		libcontainer.Init()
	}
}
