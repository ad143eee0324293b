// SPDX-License-Identifier: Apache-2.0

// Package version holds the one version number of the three programs.
package version

import "time"

// Number is the release, by semantic versioning.
const Number = "0.1.0"

// Date is when the release was begun: a day that every machine which runs it has seen.
// It is part of what a guest measures, and changes with Number.
func Date() time.Time { return time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC) }
