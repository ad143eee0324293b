// SPDX-License-Identifier: Apache-2.0

// Package house holds the tests of the code's own order: which package may import
// which, which third-party modules it may use, and what must not be linked into
// the guest's program. docs/architecture.md explains the order; these tables are
// its exact form.
package house
