// SPDX-License-Identifier: Apache-2.0

// Package token issues and verifies the attestation result that a keybroker hands to a
// guest: an EAR (draft-ietf-rats-ear) as a JWT (RFC 7519) signed with ES256, with the
// claims where Trustee's clients and policies look for them and a claim "casemate"
// that binds workload, measurement and initdata.
//
// A token is accepted from one issuer only, the one that this keybroker is: the header
// must be, byte for byte, the one it writes. That refuses every other algorithm,
// "none" included, and a token that brings its own key in the header.
//
// Files: issuer.go key and issuing; verify.go the way back; claims.go the payload.
package token
