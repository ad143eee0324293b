// SPDX-License-Identifier: Apache-2.0

//go:build !root

package imagepull

// testForm is the form of store that this package's tests run over: make unit takes
// the automatic choice, make root the directories.
const testForm = FormAuto
