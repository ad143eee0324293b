// SPDX-License-Identifier: Apache-2.0

package vault

// Field is for the fuzz test.
var Field = field
