// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	aa "github.com/casemate/casemate/agent/api/attestation"
	"github.com/casemate/casemate/agent/api/datahub"
)

// Every method of the two daemons' interfaces has a handler: an unknown one is answered as such by nobody but the server.
func TestEveryMethodHasAHandler(t *testing.T) {
	_, broker := newBroker(t)
	agent := &Agent{Evidence: new(busyTEE), Log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		file  protoreflect.FileDescriptor
		serve func(context.Context, net.Listener) error
	}{
		{aa.File_agent_api_attestation_attestation_proto, agent.Serve},
		{datahub.File_agent_api_datahub_datahub_proto, newHub(broker).Serve},
	} {
		c := dial(t, tt.serve)
		for i := range tt.file.Services().Len() {
			service := tt.file.Services().Get(i)
			for j := range service.Methods().Len() {
				name := service.Methods().Get(j).Name()
				err := c.Call(t.Context(), string(service.FullName()), string(name), &emptypb.Empty{}, &emptypb.Empty{})
				if st := status.Convert(err); st.Code() == codes.Unimplemented && (st.Message() == "no such service" || st.Message() == "no such method") {
					t.Errorf("%s/%s has no handler", service.FullName(), name)
				}
			}
		}
	}
}
