// SPDX-License-Identifier: Apache-2.0

// Package frames keeps a ttrpc server (containerd/ttrpc PROTOCOL.md, unary methods) alive
// among peers that are not ttrpc clients. It refuses frames that no client of unary methods
// sends, messages over 4 MiB, frames that do not end, peers that never speak or never read,
// and more unanswered requests than a bound; each ends its own connection and nothing else.
//
// Files: conn.go (one connection), listener.go (connections that come in).
package frames
