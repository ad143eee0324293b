// SPDX-License-Identifier: Apache-2.0

// Package keyproviderpb holds the wire types and gRPC stubs of ocicrypt's
// key-provider protocol, generated from messages.proto and keyprovider.proto.
package keyproviderpb

//go:generate sh generate.sh
