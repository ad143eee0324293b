// SPDX-License-Identifier: Apache-2.0

// Package config reads what the guest may believe.
//
// Measured is configuration that the evidence covers: /etc/casemate/casemate.toml
// in the measured root, and initdata whose digest the TEE's report carries.
// Everything else (command line, environment, vsock) is host input and has no
// way into a Measured.
//
// Our own file is decoded strictly: an unknown or repeated key is an error with
// its line. In aa.toml and cdh.toml, which other programs read too, a key that
// guest-components ignores is a warning, and one that it obeys and casemate does
// not is an error, so that no setting is dropped in silence.
//
// Two sources may repeat each other; where they differ, loading fails with the
// key's name. Initdata is attested, not authenticated: nothing in a Measured may
// be used to reach a secret before the relying party has accepted its digest.
package config
