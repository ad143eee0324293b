// SPDX-License-Identifier: Apache-2.0

// Package replay holds requests in the shapes in which kata's two runtimes send them under three container engines,
// for the tests of whoever judges or serves them. No program imports it.
//
// A [Stack] is a runtime and an engine: it decides about annotations, cgroup paths, namespaces, device rules, options
// of mounts and the order of requests. [Stack.Life] is one pod's life as the stack drives it, [Stack.Attacks] are the
// same requests with one thing changed by a host that means harm. Each [Step] says what a policy made for the pod
// ([PodFile]) has to answer, and what the built-in policy has to.
//
// The shapes follow kata 4.1's agent protocol and what its runtimes do to an engine's OCI spec: the Go runtime drops
// hooks, cgroup and network namespaces, device rules and process limits and gives every other namespace no path; the
// Rust one drops the PID namespace as well, keeps device rules and limits and may send hooks that are empty.
//
//   - stack.go: the six stacks, ids, annotations
//   - pod.go: the pod, its images' configs
//   - process.go, spec.go: the OCI part
//   - request.go: the other requests
//   - life.go, attack.go: sequences with their verdicts
//   - peer.go: the same as a peer pod's forwarder passes them on
package replay
