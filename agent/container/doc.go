// SPDX-License-Identifier: Apache-2.0

// Package container turns an OCI bundle into a process: it creates, starts, waits
// for, signals, pauses and deletes containers, carries their standard streams, and
// reaps this process' children.
//
// It implements the life cycle of the OCI runtime specification 1.3 (runtime.md,
// config.md, config-linux.md) on runc's libcontainer, with cgroup v2, v1 or the
// hybrid of both, always below one bounded cgroup.
//
// The spec is hostile input. Whatever it says, a container gets its own mount, pid,
// ipc and uts namespaces, the default masked and read-only paths, the default
// devices, no capabilities that are not listed, an OOM score of its own, and a root
// inside its bundle. Refused are hooks, working directories beneath /proc, bind
// sources outside the directories that the Policy names or behind a symbolic link,
// kernel file systems beyond a short list, writable sysfs and cgroup mounts, mounts
// over /proc, shared propagation, other devices and device rules, namespaces of
// others, seccomp listeners, network devices, resctrl and real-time scheduling.
// What a Policy can open is listed there.
//
// A program that uses the package calls Init first of all, runs as root, keeps
// heavy work off its main goroutine, and starts no child but through Reaper.Command
// (both reasons are given there). On the kernel's initial root file system, where
// pivot_root(2) is impossible, a container's root is moved over / instead, which
// leaves one wall less between the two.
//
// Files: reexec.go what a program does first; runtime.go and create.go the making
// of containers, with rollback; start.go, container.go their life; stdio.go
// streams and terminals; reaper.go orphans; policy.go, spec.go, mounts.go,
// devices.go, process.go what a spec may say; share.go mounts of one container in
// another; cgroup.go the cgroup above all; expect.go a wait in the kernel that is had early; log.go libcontainer's
// messages; shim_musl.go one symbol for static linking.
package container
