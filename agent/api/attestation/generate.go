// SPDX-License-Identifier: Apache-2.0

package attestation

// The generated files are committed, as those of package kata are.
//
//go:generate sh -ec "protoc -I../../.. --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-ttrpc=$(go tool -n protoc-gen-go-ttrpc) --go_out=../../.. --go_opt=paths=source_relative --go-ttrpc_out=../../.. --go-ttrpc_opt=paths=source_relative,prefix=TTRPC agent/api/attestation/attestation.proto"
