// SPDX-License-Identifier: Apache-2.0

package kata

// The generated files are committed: building casemate needs neither protoc nor its plug-ins, which are Go
// tools of this module. Regenerating them needs Debian's protobuf-compiler and libprotobuf-dev.
//
//go:generate sh -ec "protoc -I../../.. --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-ttrpc=$(go tool -n protoc-gen-go-ttrpc) --go_out=../../.. --go_opt=paths=source_relative --go-ttrpc_out=../../.. --go-ttrpc_opt=paths=source_relative,prefix=TTRPC agent/api/kata/types.proto agent/api/kata/csi.proto agent/api/kata/oci.proto agent/api/kata/agent.proto agent/api/kata/health.proto"
