// SPDX-License-Identifier: Apache-2.0

//go:build !root || !testsnp

package main

// beBare makes no guest of this program without the test that needs one.
func beBare() (code int, done bool) { return 0, false }
