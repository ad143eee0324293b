// SPDX-License-Identifier: Apache-2.0

// Package deb holds what the Debian packages are made from, the script that makes them
// (`make deb`) and the test of what comes out.
//
// There are three packages, one a program: casemate for a confidential VM, keybroker and
// casemate-build for the workload's owner. They have no maintainer scripts and no
// dependencies, so they can be unpacked as well as installed. The same programs and the
// same SOURCE_DATE_EPOCH give the same bytes.
//
// For each package a folder has `control` (without the fields that are computed) and
// `files`: a line for each file with its mode, its source from the repository's top and
// its place. What a package holds is in that list and nowhere else.
package deb
