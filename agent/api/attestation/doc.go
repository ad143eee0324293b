// SPDX-License-Identifier: Apache-2.0

// Package attestation holds the messages of attestation_agent.AttestationAgentService
// (guest-components' attestation-agent, ttrpc), generated from attestation.proto. It
// decides nothing: package agent/services says which calls are served.
package attestation
