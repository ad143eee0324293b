// SPDX-License-Identifier: Apache-2.0

// Package owner is what a workload's owner says to a keybroker: the registration of
// a workload, its secrets, and the HTTP client of the keybroker's owner API, which
// keybroker's own verbs and casemate-build share.
//
// The API is under /owner/v1: PUT, GET and DELETE workloads/{id}, GET workloads,
// PUT and DELETE workloads/{id}/secrets/{repository}/{type}/{tag} and GET
// workloads/{id}/secrets, each with a bearer token. Registrations travel as closed
// JSON and are written by people as closed TOML; secrets travel as raw bytes.
//
// It refuses registrations that pin nothing, unknown or repeated keys, plain HTTP
// that was not asked for, redirects, and answers over their size cap.
//
// Files: registration.go the document; validate.go what it must say; devices.go what attests beside the TEE; toml.go and
// json.go its two forms; paths.go names of workloads and resources; client.go the
// connection; workloads.go and secrets.go the calls; files.go token and root files.
package owner
