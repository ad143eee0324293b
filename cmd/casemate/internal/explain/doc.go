// SPDX-License-Identifier: Apache-2.0

// Package explain says in words what one handshake with a relying party sent and what came
// of it, from its transcript alone: no network, no device, so that it works on a copy too.
//
// A denied guest is told a rule and a reference, never what was wanted (that is for the
// owner, not for the host that reads along). What keybroker wanted and found is in its
// audit log, which an owner can lay beside the transcript.
//
// It verifies no signature and gives no verdict of its own: it repeats what was sent, and
// whether nonce, key and initdata are bound into it. Evidence that it cannot read is named
// as such. All text from outside is quoted before it reaches a terminal.
//
// Beside that it prints why a policy refused a request of the host's; the judging again is
// agent/policy's.
//
// Files: explain.go (the parts put together), claims.go (what was sent), audit.go (the
// owner's log), print.go, policy.go (a refused request).
package explain
