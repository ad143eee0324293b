// SPDX-License-Identifier: Apache-2.0

// Package kbs is the guest's client of a key broker service: it proves what the guest
// is, keeps the session that this earns, and fetches secrets that only this session's
// key opens. It implements the KBS attestation protocol 0.4.0 as Trustee speaks it,
// RFC 7516 for the answers, and the resource URIs of guest-components.
//
// The network and the clock belong to the host. The broker is reached over TLS with
// pinned roots, or over plain HTTP only where the configuration says so: then anybody
// on the way can deny, and can substitute a secret, since encryption to our key
// authenticates nobody. Redirects are refused, so evidence, cookie and token go to the
// configured place or nowhere; no proxy is taken from the environment; every answer has
// a size cap and every request a time limit. Token times are compared with the broker's
// own clock and then run on the monotonic one. The token's signature is not checked
// here: it convinces other parties, not us.
//
// A deny is final. Only failures of the transport are tried again, maxAttempts times
// with growing pauses. A 401 for a resource means that the session is gone as well as
// that a policy said no (Trustee uses it for both), so it causes one new handshake and
// is final the second time. However many callers ask, one handshake runs.
//
// Files: config.go, client.go the entry points; session.go one session for all; exporter.go
// tokens for other processes;
// handshake.go the protocol; transcript.go how one went; token.go token times; teekey.go, jwe.go the session's key
// and what it opens; transport.go HTTP; errors.go; uri.go resource URIs;
// counter.go keybroker's counters of volumes, over TLS alone; report.go and incidents.go what the workload's owner is told. The directory
// kbstest has a broker that lies.
package kbs
