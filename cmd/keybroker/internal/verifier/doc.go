// SPDX-License-Identifier: Apache-2.0

// Package verifier judges evidence against a workload's registration. It decides by
// code what no policy may loosen: the chain to AMD's roots, the report's signature, the
// firmware the signing key is certified for, no debugging, no migration, privilege
// level 0, what the report is bound to, and that the registration lists what it found.
//
// It implements the verification of AMD publication 56860 (ATTESTATION_REPORT) and
// 57230 (VCEK and VLEK certificates, their extensions and revocation lists) on
// evidence in Trustee's JSON form; and for TDX, quotes 4 and 5 of Intel's DCAP Quoting
// Library API, the PCK certificate profile, and tables of TCB info version 3 and enclave
// identity version 2; for a TPM 2.0, quotes of TCG's TPM 2.0 Library part 2.
//
// Each check is a row of a table with a stable name. A verdict holds what every row
// wanted and found; it allows only when every row was judged and passed, so a row that
// is missing denies. Missing or stale collateral denies unless the registration takes
// it. Certificates come with the evidence, from a directory or, where it is told to, from
// AMD's Key Distribution Service (kds.go), which gives out no VLEK.
//
// Files: verdict.go the result; verifier.go the entrance; registration.go rows that
// compare with the registration, at every release too; snp.go, snpchecks.go rows on SNP
// evidence; snpcert.go, snpchain.go, snproots.go certificates; collateral.go those on
// disk and revocation; tcb.go firmware levels; snpclaims.go claims; tdx.go, tdxchecks.go, tdxpck.go, tdxtcb.go the same for TDX; tpm.go a
// plain TPM, whose key nobody but the owner vouches for; sample.go the sample TEE; devices.go devices beside the TEE.
package verifier
