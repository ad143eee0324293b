// SPDX-License-Identifier: Apache-2.0

// Package eventlog keeps the guest's record of what it did since it booted, in the AAEL
// format of guest-components (attestation-agent/docs: event log), and extends each entry
// into a register that the TEE signs: RTMR3 of a TDX guest, as Linux 6.16 and later
// offers it. A verifier replays the log and finds the register's value, or knows that the
// log is not the whole truth.
//
// Where the platform has no such register, entries are written as EV_NO_ACTION, with a
// digest of zeros: every replay passes over them, and nobody takes them for measured.
//
// One log serves several processes, held apart by a lock file. A process that dies
// between extending and writing leaves its intention in a write-ahead file, which the
// next one completes: an entry is in the register and the log once, or in neither.
//
// Refused: entries that would read as two, texts and logs over their caps, a log of
// another form, a register that is neither before nor behind an interrupted entry. The
// entries of other programs have a share of the log, so that they cannot fill it.
//
// Files: entry.go the format; log.go the log; recover.go what a dead process left;
// rtmr.go the register of TDX.
package eventlog
