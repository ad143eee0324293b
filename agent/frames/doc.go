// SPDX-License-Identifier: Apache-2.0

// Package frames is a ttrpc server (containerd/ttrpc PROTOCOL.md, unary methods) for peers
// that need not be ttrpc clients. It refuses frames that no client of unary methods sends,
// messages over 4 MiB, frames that do not end, peers that never speak or never read, and
// more unanswered requests than a bound; each ends its own connection and nothing else.
// The protocol's own library is a client in the tests: as a server it ends the process on
// some frames, bounds nothing, and copies and allocates each answer twice.
//
// Files: server.go (connections that come in, and the end), conn.go (one connection),
// answer.go (from a request to its answer).
package frames
