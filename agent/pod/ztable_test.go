// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestRootZTable comes last and prints the table of the API: what is served, with how
// often the tests above were answered and refused, and what is refused for good.
func TestRootZTable(t *testing.T) {
	g := startGuest(t)
	methods := kata.File_agent_api_kata_agent_proto.Services().ByName("AgentService").Methods()
	served := 0
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		calls.Lock()
		done, failed := calls.done[name], calls.failed[name]
		calls.Unlock()
		if g.handlers[name] {
			served++
			fmt.Printf("rpc: %-30s served, %d answered, %d refused\n", name, done, failed)
			if done == 0 {
				t.Errorf("no test has %s answered", name)
			}
			continue
		}
		err := g.client.Call(within(t), "grpc.AgentService", name, &emptypb.Empty{}, &emptypb.Empty{})
		s := status.Convert(err)
		want := string(methods.Get(i).Input().Name()) + " is blocked by policy: "
		reason, ok := strings.CutPrefix(s.Message(), want)
		if s.Code() != codes.PermissionDenied || !ok {
			t.Errorf("%s: got %v %q, want %v %q", name, s.Code(), s.Message(), codes.PermissionDenied, want)
		}
		fmt.Printf("rpc: %-30s refused: %s\n", name, reason)
	}
	fmt.Printf("rpc: %d methods, %d served, %d refused\n", methods.Len(), served, methods.Len()-served)
}
