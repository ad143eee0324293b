// SPDX-License-Identifier: Apache-2.0

// Package services serves what guest-components' three daemons offer inside a guest:
// attestation_agent.AttestationAgentService and the data hub's services over ttrpc, and
// api-server-rest's routes over HTTP/1 on loopback (guest-components
// attestation-agent/protos, confidential-data-hub/protos, api-server-rest).
//
// Evidence is of the workload domain, so none of it passes for the guest's own
// handshake. Refused by name: GetToken and the raw form of evidence unless
// measured configuration asks for them (they let a caller be this guest), tokens of other
// types than kbs, BindInitData, SecureMount, WrapKey, event-log entries of the guest's own domains, REST paths that
// are not listed for the workload, REST peers that are not on loopback. Clients read
// fixed phrases; reasons go to the log.
//
// Files: services.go (what the services stand on), ttrpc.go (the server), agent.go
// (attestation agent), turn.go (one caller at a time), hub.go (data hub), rest.go (HTTP), remote.go (the same parts where
// another process serves them).
package services
