// SPDX-License-Identifier: Apache-2.0

// Package attest produces the evidence of the machine it runs on: SEV-SNP reports and
// TDX quotes through Linux's configfs-tsm (Documentation/ABI/testing/configfs-tsm-report)
// in the JSON form that a KBS reads. It produces and never verifies.
//
// A plain TPM 2.0 (TCG TPM 2.0 Library) is used when it is asked for by name, never because
// nothing else is there: it protects no memory. Its quote covers all SHA-256 registers.
// Devices makes it one that attests beside the TEE, whose report then binds its key.
//
// Detect goes by the report provider that the kernel names, and refuses a machine
// without one. Where there is no configfs-tsm at all, SNP reports come from /dev/sev-guest
// (Documentation/virt/coco/sev-guest.rst), the same in every byte; TDX quotes do not. There is no fallback: the sample TEE exists only in binaries built with
// the tag "sample", the test signer only in binaries built with the tag "testsnp", and
// both only when they are asked for by name.
//
// What the host hands over on the way is hostile: certificate tables and event logs
// are bounded and checked, other report providers than the expected one are refused,
// and a report that was raced by another writer is asked for again a few times.
//
// Files: attest.go Detect; tsm.go configfs-tsm; snp.go, sevguest.go and certtable.go SEV-SNP;
// tdx.go and ccel.go TDX; tpm.go and tpmkey.go a plain TPM; sample.go, nosample.go, testsnp.go and notestsnp.go what the
// build tags switch. The directory snptest has the test signer's key material.
package attest
