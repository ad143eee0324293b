// SPDX-License-Identifier: Apache-2.0

// Package kbstest is a key broker in the test's own process. It speaks the KBS
// attestation protocol 0.4.0 properly: nonces are used once, evidence must be bound to
// the nonce and the key, secrets are encrypted to the attested key. On request it
// misbehaves in one way, so that a client's answer to each lie can be tested.
//
// It believes sample evidence and is no relying party. Only tests may import it.
package kbstest
