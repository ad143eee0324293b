// SPDX-License-Identifier: Apache-2.0

// Package kata holds the messages of the sandbox API that Kata Containers 4.1 speaks to its agent, generated
// from the .proto files beside it. It decides nothing: package agent says which calls are served.
//
//   - agent.proto: service grpc.AgentService and its messages
//   - oci.proto: the OCI runtime specification in protobuf form
//   - types.proto: network interfaces, routes, neighbours, volume ownership
//   - csi.proto: volume statistics
//   - health.proto: service grpc.Health
//   - generate.go: how to make the generated files again
package kata
