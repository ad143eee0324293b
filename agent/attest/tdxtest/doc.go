// SPDX-License-Identifier: Apache-2.0

// Package tdxtest is a TDX platform with key material of its own: quotes of version 4 and
// 5 (Intel TDX DCAP Quoting Library API, "Quote Format") below a PCK chain, and the
// collateral that Intel would publish for it. It is for tests of guests and relying
// parties on machines without the hardware; no program imports it.
package tdxtest
