// SPDX-License-Identifier: Apache-2.0

// Package store keeps a keybroker's registrations, secrets and signing key in one
// state directory, every value encrypted under a master key that lives in a file of
// its own.
//
// It is a bbolt database: one writer, each change one fsynced transaction, so a crash
// leaves the state before or after it. Values are sealed with AES-256-GCM (NIST SP
// 800-38D) with a random 96-bit IV; bucket and key are the additional data, so a
// value moved to another name does not open.
//
// It refuses a state directory that others can read, a master key that did not write
// the state, and a missing master key beside existing state. It notices neither a
// whole older copy of the state put in its place nor the removal of single values.
//
// Files: store.go opening; masterkey.go the key file; seal.go one value; workloads.go,
// secrets.go, once.go, counters.go and keys.go what is kept.
package store
