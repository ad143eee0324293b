// SPDX-License-Identifier: Apache-2.0

// Package initdata reads the document that the host hands to a guest at launch and
// whose digest the hardware keeps: HOST_DATA of an SNP report, MRCONFIGID of a TDX
// quote. It implements the Initdata specification of confidential-containers,
// version 0.1.0.
//
// A document that matches the hardware is attested, not authenticated: it says which
// document the host chose, not that the choice was good. Nothing secret may depend on
// it before the relying party has accepted its digest.
//
// ReadDevice takes a document from a disk in the form that kata's runtime makes.
//
// Parse refuses more than MaxSize bytes, every version but 0.1.0, every hash but
// sha256, sha384 and sha512, keys that are unknown, repeated, of another type or of
// another case, and a tree deeper than the format has. Match refuses a hardware value
// that is all zero. ReadDevice refuses lengths over a cap, whatever lies behind the
// document's one gzip member, and what unpacks to more than MaxSize.
package initdata
