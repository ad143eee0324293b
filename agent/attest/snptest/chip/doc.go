// SPDX-License-Identifier: Apache-2.0

// Package chip is the half of package snptest that stands in a test guest where the
// processor would: it loads a signer from its directory and signs reports. It makes no
// keys and links none, so that such a guest is no slower to start than a real one.
//
// It refuses a directory whose parts do not fit together or say what no report can.
package chip
