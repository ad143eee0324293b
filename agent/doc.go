// SPDX-License-Identifier: Apache-2.0

// Package agent serves the sandbox API of Kata Containers 4.1 (grpc.AgentService and grpc.Health over ttrpc,
// on AF_VSOCK port 1024 or a unix socket) to a host that is not trusted.
//
// Every request passes one gate: the method stands in one table as served or refused, the door is open, and the
// policy behind it allows the decoded request. Until a policy has been accepted, and again once the guest is
// parked, the door is closed and everything but grpc.Health is answered with PERMISSION_DENIED and a reason that
// is a stable code and a fixed phrase. Peers other than the host (CID 2, or this user on a unix socket), streams,
// and frames that no client of the protocol sends end the connection.
//
//   - address.go: listen addresses and the check of the peer
//   - door.go: closed, open, parked; the reasons that the host sees
//   - gate.go: the one interceptor
//   - holding.go: what a decision holds back until handling has begun, and undoing it
//   - health.go: grpc.Health
//   - methods.go: the table of served and refused methods
//   - server.go: listening and stopping
package agent
