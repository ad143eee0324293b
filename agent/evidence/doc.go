// SPDX-License-Identifier: Apache-2.0

// Package evidence holds the wire types of remote attestation that a guest writes
// and a relying party reads: what is bound into a report, the reports themselves,
// the bodies of the KBS protocol and the encrypted answer.
//
// It implements KBS attestation protocol 0.4.0 as Trustee speaks it, RFC 8785 for
// the bytes that are hashed, RFC 7517 and RFC 7516 for the key and the answer, the
// ATTESTATION_REPORT layout of AMD publication 56860, TPMS_ATTEST and TPMT_SIGNATURE of
// TCG's TPM 2.0 Library part 2, event logs of its PC Client Platform Firmware Profile, and
// quotes 4 and 5 of Intel's TDX
// DCAP Quoting Library API.
//
// Every Parse function takes hostile bytes. It refuses anything over its named
// size cap, duplicate or unknown or missing members, numbers outside their field,
// invalid UTF-8, padded or non-canonical base64url, keys off their curve and
// reports that the JSON form could not carry without loss. Nothing here does I/O
// and nothing here verifies a signature.
//
// Files: tee.go names; hash.go hash negotiation; reportdata.go what a report is
// bound to; runtimedata.go its canonical JSON; additional.go the parts of devices beside the TEE; jwk.go the TEE key; protocol.go and
// attestation.go the KBS bodies; snpreport.go the raw SNP report; snpevidence.go
// and snpcert.go its JSON form; tdx.go, tdxquote.go and tdreport.go
// TDX evidence; tpmquote.go and tpmevidence.go TPM evidence; eventlog.go and tpmlog.go
// replay of event logs; sample.go the sample; jwe.go and
// jweseal.go the encrypted answer; reader.go and base64.go the strict decoding.
package evidence
