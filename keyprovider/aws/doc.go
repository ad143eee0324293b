// SPDX-License-Identifier: Apache-2.0

// Package aws asks Amazon's Key Management Service and Secrets Manager for what sealed
// secrets of provider "aws" stand for: the data key of an envelope (KMS API 2014-11-01,
// Decrypt and, for owners, GenerateDataKey), and secrets (Secrets Manager API 2017-10-17,
// GetSecretValue). Requests are signed by Signature Version 4 (IAM User Guide, "Create a
// signed API request"). It is a keyprovider.KMS and a keyprovider.SecretStore.
//
// Both services are reached over TLS with pinned roots and never through a proxy;
// redirects are refused. Region, addresses, roots and where the credentials come from
// are configuration's: provider_settings may only repeat the region. Errors say the
// status and the kind of a failure, and nothing else of a body.
//
// Refused: credentials that are not a file of confidential-data-hub's form
// (credential.json), envelopes and secrets of other regions, unknown annotations.
// Not served: credentials of an instance's metadata service, which is the host's.
//
// Files: client.go (requests), credential.go, sigv4.go (the signature), kms.go,
// secrets.go (the two services).
package aws
