// SPDX-License-Identifier: Apache-2.0

// Package reexec takes over in the second start of a program as a container's init
// (runc's libcontainer/README.md, "Using libcontainer"). Importing it is all there is
// to do: package container does, and with it each program that makes containers.
//
// It refuses to obey variables that anybody but the process' own parent has set: see
// guard.c.
package reexec
