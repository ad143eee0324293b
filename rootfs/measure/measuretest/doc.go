// SPDX-License-Identifier: Apache-2.0

// Package measuretest makes small artifacts for tests of measuring: firmware, EFI
// programs and unified kernel images that parse as real ones do, and do nothing. Programs must not
// link it.
package measuretest
