// SPDX-License-Identifier: Apache-2.0

// Keybroker is the relying party of casemate: a workload's owner registers there what
// the workload is, and a guest that proves to be it gets the workload's secrets, each
// encrypted to a key that only the guest has.
//
// It speaks the KBS attestation protocol 0.4.0 to guests. Everything it keeps is in one
// state directory; its other verbs are clients of a running one, except log and policy
// check, which read files.
//
// It refuses to start with a state directory or seal key that others can read, on plain
// HTTP that was not asked for, and with a seal key that did not write the state.
//
// Files: main.go and cli.go the command line; serve.go, servetls.go and servestate.go
// the server; register.go, resource.go, counter.go, policy.go, refvalues.go, log.go, version.go one
// verb each; incidents.go what a guest told; ownerflags.go how they reach a keybroker.
package main
