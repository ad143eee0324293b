// SPDX-License-Identifier: Apache-2.0

// Package incidents keeps what was refused or failed in a guest until the relying party is told of it, for the
// workload's owner: the host is told codes alone (docs/security.md, rule 18).
//
// Nothing waits for it. Incidents go into a ring of MaxKept in memory; equal ones are counted and not kept again; what
// finds no place is counted. They are sent in messages of evidence.MaxIncidents, over a session that was made for
// something else: it never makes one. A message is tried maxTries times. A relying party that does not know the path is
// not asked again. However many requests a host has refused, messages go out at a rate of their own, so that it can
// neither slow the guest down nor make it fill the relying party's disk.
//
// It refuses nothing and says nothing on any log that the host reads: a failure to tell is a line of level debug.
// Files: reporter.go (the ring), send.go (when and how it is emptied).
package incidents
