// SPDX-License-Identifier: Apache-2.0

// Package api is the HTTP face of a keybroker: the KBS attestation protocol 0.4.0 for
// guests under /kbs/v0 (POST auth, POST attest, GET resource; casemate's own are GET and POST
// counter, POST report and POST incidents), the owner API under
// /owner/v1 (package owner has its description), and /healthz.
//
// To guests it answers 401 for a session, token or attestation that does not count,
// 403 for what policy or registration denies, 404 for what does not exist, each with
// the protocol's JSON body: a stable code and a correlation id. What was wanted and
// found goes to the audit log only, since the guest's host may read along.
//
// A nonce is spent by the first attestation that names its session, good or bad. No
// lock is held while evidence is verified. A verdict that cannot be recorded is a
// denial. It refuses bodies over their cap before reading them whole, paths with escapes
// or dots, repeated query parameters, and more requests than configured from one address.
// An initdata document is parsed only when a registration lists its digest.
//
// Files: server.go life cycle; listener.go connections of one address; routes.go and
// respond.go HTTP; limit.go rates; session.go sessions; auth.go, attest.go, resource.go
// the guest's three calls; counter.go a fourth, the counters of volumes; report.go and incidents.go what
// guests tell their owners; admission.go which registration a guest is judged by;
// ownerapi.go and ownersecrets.go the owner's calls.
package api
