// SPDX-License-Identifier: Apache-2.0

// Package vault asks a HashiCorp Vault or OpenBao server for what sealed secrets stand
// for: the data key of an envelope through the transit engine (HTTP API,
// /transit/decrypt and /transit/datakey), and values of the KV version 2 engine
// (/secret/data). It is a keyprovider.KMS and a keyprovider.SecretStore.
//
// The server is reached over TLS with pinned roots and never through a proxy; redirects
// are refused, so the token goes to the configured server or nowhere. Address, roots and
// mounts are configuration's: what a sealed secret says cannot move them, so its
// provider_settings must be empty. Names are plain path segments. Errors say the status
// and nothing of a body, which could quote the token.
//
// Not served: tokens that are renewed or earned by a login, KV version 1, derived transit
// keys, wrapped responses.
//
// Files: client.go (requests), transit.go, kv.go (the two engines).
package vault
