// SPDX-License-Identifier: Apache-2.0

// Package version holds the one version number of the three programs.
package version

// Number is the release, by semantic versioning.
const Number = "0.1.0"
