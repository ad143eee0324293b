// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/frames"
)

// apiVersion is what agents of this API generation report as their grpc_version; no runtime acts on it.
const apiVersion = "0.0.1"

// health serves grpc.Health. It holds nothing but constants, so an answer never waits. A parked guest answers
// SERVING too: a runtime that saw anything else would kill the guest before its user has read the reason.
type health struct {
	version string
}

func (h health) methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{"Check": frames.Unary(h.Check), "Version": frames.Unary(h.Version)}
}

func (h health) Check(context.Context, *kata.CheckRequest) (*kata.HealthCheckResponse, error) {
	return &kata.HealthCheckResponse{Status: kata.HealthCheckResponse_SERVING}, nil
}

func (h health) Version(context.Context, *kata.CheckRequest) (*kata.VersionCheckResponse, error) {
	return &kata.VersionCheckResponse{GrpcVersion: apiVersion, AgentVersion: h.version}, nil
}
