// SPDX-License-Identifier: Apache-2.0

// Package measured is the file in which casemate-build writes reference values: what
// a guest is expected to report, from which artifacts each value was computed, and
// what differs between two such files.
//
// The form is the project's own, one JSON document without paths or dates: the same
// artifacts give the same bytes. Read back it is strict: unknown, repeated and
// differently cased members, values of unknown artifacts, repeated names and anything
// but lower-case hex are errors. A message in another's form has its signature in a file
// beside it.
package measured
