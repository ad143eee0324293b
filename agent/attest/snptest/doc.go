// SPDX-License-Identifier: Apache-2.0

// Package snptest signs SEV-SNP reports with key material of its own, for tests of
// guests and relying parties on machines without the hardware. It is to real reports
// what net/http/httptest is to a server: nothing but tests and binaries built with the
// tag testsnp may import it.
//
// A directory holds ark.pem, ask.pem and vcek.pem (the certificate chain), vcek.key
// (PKCS #8 PEM) and report.toml (what the reports say). Changing report.toml changes
// what the guest claims; a reported TCB or chip id that the VCEK does not carry gives
// evidence that a relying party refuses, as on hardware.
package snptest
