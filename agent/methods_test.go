// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestEveryMethodStandsInOneTable walks all generated services of the API, so that a method which a new .proto
// brings is a failing test until someone has decided about it.
func TestEveryMethodStandsInOneTable(t *testing.T) {
	open, shut, known := served(), refused(), make(map[string]bool)
	protoregistry.GlobalFiles.RangeFilesByPackage("grpc", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				name := string(service.FullName()) + "/" + string(m.Name())
				known[name] = true
				_, isServed := open[name]
				_, isRefused := shut[name]
				if isServed == isRefused {
					t.Errorf("%s: served %v, refused %v: it must be exactly one", name, isServed, isRefused)
				}
				if m.IsStreamingClient() || m.IsStreamingServer() {
					t.Errorf("%s streams: the gate sees unary methods only", name)
				}
			}
		}
		return true
	})
	if len(known) != 44 {
		t.Errorf("found %d methods, want 44", len(known))
	}
	for name := range open {
		if !known[name] {
			t.Errorf("served names unknown method %s", name)
		}
	}
	for name, reason := range shut {
		if !known[name] {
			t.Errorf("refused names unknown method %s", name)
		}
		if reason.Code == "" || reason.Phrase == "" {
			t.Errorf("%s is refused without a reason", name)
		}
	}
	if got := len(methods()); got != len(known) {
		t.Errorf("the gate knows %d methods, want %d", got, len(known))
	}
}

// TestAlwaysOpenMethods pins the only methods that answer while the door is closed.
func TestAlwaysOpenMethods(t *testing.T) {
	for name, m := range methods() {
		isHealth := name == "grpc.Health/Check" || name == "grpc.Health/Version"
		if (m.served && m.access == always) != isHealth {
			t.Errorf("%s: always open is %v", name, m.served && m.access == always)
		}
	}
}

func TestRequestNameIsTheMessageName(t *testing.T) {
	for name, want := range map[string]string{
		"grpc.AgentService/CreateContainer":  "CreateContainerRequest",
		"grpc.AgentService/WriteStdin":       "WriteStreamRequest",
		"grpc.AgentService/ReadStderr":       "ReadStreamRequest",
		"grpc.AgentService/GetGuestDetails":  "GuestDetailsRequest",
		"grpc.AgentService/MemAgentMemcgSet": "MemAgentMemcgConfig",
	} {
		if got := methods()[name].request; got != want {
			t.Errorf("%s: request %q, want %q", name, got, want)
		}
	}
}
