// SPDX-License-Identifier: Apache-2.0

// Package chain holds the tests of the three programs together: a real registry, a
// real keybroker, and guests with a test chip. They run as root, since containers do.
package chain
