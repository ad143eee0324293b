// SPDX-License-Identifier: Apache-2.0

// Package remote lets a test on the host run test programs inside a guest, over a stream such as vsock. The guest's
// half exists only behind the build tag vmtest: a program that is released has nothing of it.
//
// One connection carries one [Request] as a line of JSON, then frames back: a kind byte, a length in big-endian
// order, that many bytes. There is no authentication and no limit worth the name; it is a test tool.
package remote
