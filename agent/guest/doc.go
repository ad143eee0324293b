// SPDX-License-Identifier: Apache-2.0

// Package guest does what the first process of a virtual machine owes it: a clean start, mounts, kernel modules,
// control groups, the loopback interface, a locked-down kernel, a line on the console, the power switch.
//
// The kernel command line, and with it the arguments and the environment of the first process, belongs to the host
// and is used for nothing. There is no shell and no way to ask for one. Every step that fails is one named
// [StepError]; nothing here ends the process, the caller parks.
//
//   - boot.go: the steps in order
//   - cgroups.go: control groups, version 2
//   - console.go: one line at a time for whoever reads the console
//   - measuredroot.go: from the measured initial RAM file system to the root that it pins
//   - modules.go: the module list of the image
//   - mounts.go: the table of mounts
//   - network.go: loopback and host name
//   - root.go: a root file system that containers can pivot away from
//   - seal.go: what the kernel is made to give up once the modules are in
//   - start.go: the second start without arguments and environment; power
package guest
