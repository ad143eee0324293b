// SPDX-License-Identifier: Apache-2.0

// Package audit keeps the record of what a keybroker decided: one JSON object a line,
// appended to audit.log in the state directory, each with what was wanted and found.
// Records have no member that could hold a secret or a token.
//
// A log that reaches MaxFileSize is renamed audit.log.1 and a new one begun; the oldest
// of KeptFiles is dropped, so that a peer that is refused for ever cannot fill the
// disk. Lines are not fsynced: they survive the process, not a power cut.
//
// Beside it are what guests say: of themselves after a handshake (report.go), and of what was refused or failed in them
// (incidents.go), each in capped files of their own.
//
// It refuses records over MaxRecordSize after cutting their text. Files: record.go one
// line; log.go writing; read.go reading.
package audit
