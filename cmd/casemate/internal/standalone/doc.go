// SPDX-License-Identifier: Apache-2.0

// Package standalone keeps the declared containers of one guest running, where
// there is no kata runtime: it starts them, keeps the end of their output, starts
// them again by their restart policy, and serves the socket on which
// `casemate ps`, `logs` and `stop` ask.
//
// Nothing can be started over the socket that configuration does not declare, and
// nothing can be changed but the wish that a container runs. Output stays in memory, in
// a ring of fixed size for each container: the disk and the console of a guest are its
// host's. Who may open the socket is the listener's business; requests have no names or
// passwords.
//
// The protocol is HTTP/1.1 with JSON, between two copies of this program:
// GET /containers, GET /containers/NAME/log[?follow=1], POST /containers/NAME/stop.
//
//   - supervisor.go: one loop for each container; backoff.go its pauses
//   - ring.go: the end of the output
//   - server.go, client.go: the socket's two sides
package standalone
