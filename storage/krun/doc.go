// SPDX-License-Identifier: Apache-2.0

// Package krun reads, and for casemate-build writes, what `buildah mkcw` and oci2cw append to a confidential-workload disk for libkrun's guests: behind a
// LUKS1 volume and padding, a JSON object, the letters KRUN and the object's length, 64 bits little-endian, at the very end.
//
// All of it is the host's: nothing authenticates it, and it is read before anything is unlocked. It says which workload
// the disk claims to be and where its key is, so that the opener can compare that with what it knows, never to learn it.
//
// It refuses: objects over 1 MiB, members that are missing, unknown, repeated or in another spelling, text behind the
// object, and a length that reaches before the device's start.
package krun
