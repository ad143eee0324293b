// SPDX-License-Identifier: Apache-2.0

// Package doctor says what proves a guest's parts on the platform that it runs on, and
// looks at the machine for what would undo that proof: a root file system that nothing
// measures, memory that is swapped to the host's disk, a missing report interface.
//
// Which platform it is, the host says (DMI): it decides which page is shown and nothing
// else. Nothing is verified here and nobody is asked over the network; a relying party
// judges evidence, not this program's word.
//
// Files: platforms.go (what proves what, docs/clouds.md says the same), inspect.go (the
// machine), print.go.
package doctor
