// SPDX-License-Identifier: Apache-2.0

package kata

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestFieldNumbers pins what the wire format fixes: a renumbered field would be read as another one by every
// runtime in the field.
func TestFieldNumbers(t *testing.T) {
	pins := []struct {
		field  string
		number protoreflect.FieldNumber
		kind   string // cardinality and kind, as shape prints them
	}{
		{"grpc.CreateContainerRequest.container_id", 1, "string"},
		{"grpc.CreateContainerRequest.string_user", 3, "grpc.StringUser"},
		{"grpc.CreateContainerRequest.storages", 5, "repeated grpc.Storage"},
		{"grpc.CreateContainerRequest.OCI", 6, "grpc.Spec"},
		{"grpc.CreateContainerRequest.sandbox_pidns", 7, "bool"},
		{"grpc.CreateContainerRequest.stderr_port", 11, "uint32"},
		{"grpc.ExecProcessRequest.process", 4, "grpc.Process"},
		{"grpc.SignalProcessRequest.signal", 3, "uint32"},
		{"grpc.WaitProcessResponse.status", 1, "int32"},
		{"grpc.WriteStreamRequest.data", 3, "bytes"},
		{"grpc.ReadStreamRequest.len", 3, "uint32"},
		{"grpc.ReadStreamResponse.data", 1, "bytes"},
		{"grpc.CreateSandboxRequest.hostname", 1, "string"},
		{"grpc.CreateSandboxRequest.sandbox_id", 5, "string"},
		{"grpc.CreateSandboxRequest.kernel_modules", 7, "repeated grpc.KernelModule"},
		{"grpc.ReseedRandomDevRequest.data", 2, "bytes"},
		{"grpc.FSGroup.group_id", 2, "uint32"},
		{"grpc.FSGroup.group_change_policy", 3, "types.FSGroupChangePolicy"},
		{"grpc.SharedMount.dst_path", 5, "string"},
		{"grpc.Storage.driver", 1, "string"},
		{"grpc.Storage.driver_options", 2, "repeated string"},
		{"grpc.Storage.mount_point", 6, "string"},
		{"grpc.Storage.shared", 8, "bool"},
		{"grpc.Device.container_path", 4, "string"},
		{"grpc.CopyFileRequest.path", 1, "string"},
		{"grpc.CopyFileRequest.file_size", 2, "int64"},
		{"grpc.CopyFileRequest.offset", 7, "int64"},
		{"grpc.CopyFileRequest.data", 8, "bytes"},
		{"grpc.SetGuestDateTimeRequest.Usec", 2, "int64"},
		{"grpc.AgentDetails.supports_seccomp", 5, "bool"},
		{"grpc.GuestDetailsResponse.agent_details", 2, "grpc.AgentDetails"},
		{"grpc.MemHotplugByProbeRequest.memHotplugProbeAddr", 1, "repeated uint64"},
		{"grpc.AddSwapRequest.PCIPath", 1, "repeated uint32"},
		{"grpc.MemAgentMemcgConfig.swappiness_max", 3, "optional uint32"},
		{"grpc.MemAgentCompactConfig.compact_sec_max", 5, "optional int64"},
		{"grpc.MemoryStats.stats", 6, "map"},
		{"grpc.CgroupStats.hugetlb_stats", 5, "map"},
		{"grpc.NetworkStats.tx_dropped", 9, "uint64"},
		{"grpc.SetPolicyRequest.policy", 1, "string"},
		{"grpc.Spec.Process", 2, "grpc.Process"},
		{"grpc.Spec.Annotations", 7, "map"},
		{"grpc.Spec.Linux", 8, "grpc.Linux"},
		{"grpc.Process.Args", 4, "repeated string"},
		{"grpc.Process.Cwd", 6, "string"},
		{"grpc.Process.SelinuxLabel", 12, "string"},
		{"grpc.Mount.options", 4, "repeated string"},
		{"grpc.Hooks.StartContainer", 6, "repeated grpc.Hook"},
		{"grpc.Linux.Seccomp", 8, "grpc.LinuxSeccomp"},
		{"grpc.Linux.IntelRdt", 13, "grpc.LinuxIntelRdt"},
		{"grpc.LinuxSyscall.errnoret", 3, "uint32"},
		{"grpc.LinuxSyscall.Args", 4, "repeated grpc.LinuxSeccompArg"},
		{"grpc.VolumeUsage.unit", 4, "grpc.VolumeUsage.Unit"},
		{"grpc.HealthCheckResponse.status", 1, "grpc.HealthCheckResponse.ServingStatus"},
		{"grpc.VersionCheckResponse.agent_version", 2, "string"},
		{"types.Interface.hwAddr", 5, "string"},
		{"types.Interface.raw_flags", 8, "uint32"},
		{"types.Route.family", 6, "types.IPFamily"},
		{"types.ARPNeighbor.flags", 5, "int32"},
	}
	for _, pin := range pins {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(pin.field))
		if err != nil {
			t.Errorf("%s: %v", pin.field, err)
			continue
		}
		f := d.(protoreflect.FieldDescriptor)
		if f.Number() != pin.number || shape(f) != pin.kind {
			t.Errorf("%s = %d %s, want %d %s", pin.field, f.Number(), shape(f), pin.number, pin.kind)
		}
	}
}

func shape(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "map"
	}
	s := f.Kind().String()
	if m := f.Message(); m != nil {
		s = string(m.FullName())
	}
	if e := f.Enum(); e != nil {
		s = string(e.FullName())
	}
	switch {
	case f.IsList():
		return "repeated " + s
	case f.HasOptionalKeyword():
		return "optional " + s
	}
	return s
}

func TestEnumNumbers(t *testing.T) {
	pins := map[protoreflect.FullName]string{
		"types.IPFamily":                         "v4=0 v6=1",
		"types.FSGroupChangePolicy":              "Always=0 OnRootMismatch=1",
		"grpc.VolumeUsage.Unit":                  "UNKNOWN=0 BYTES=1 INODES=2",
		"grpc.HealthCheckResponse.ServingStatus": "UNKNOWN=0 SERVING=1 NOT_SERVING=2",
	}
	for name, want := range pins {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		values, got := d.(protoreflect.EnumDescriptor).Values(), ""
		for i := range values.Len() {
			got += fmt.Sprintf(" %s=%d", values.Get(i).Name(), values.Get(i).Number())
		}
		if got != " "+want {
			t.Errorf("%s:%s, want %s", name, got, want)
		}
	}
}

// TestServices pins the service names and that no call streams: the gate sees unary calls only.
func TestServices(t *testing.T) {
	for _, s := range []struct {
		name    protoreflect.FullName
		methods int
	}{{"grpc.AgentService", 42}, {"grpc.Health", 2}} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(s.name)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		if methods.Len() != s.methods {
			t.Errorf("%s has %d methods, want %d", s.name, methods.Len(), s.methods)
		}
		for i := range methods.Len() {
			if m := methods.Get(i); m.IsStreamingClient() || m.IsStreamingServer() {
				t.Errorf("%s streams", m.FullName())
			}
		}
	}
}

// TestBytes compares one encoded request with bytes put together by hand.
func TestBytes(t *testing.T) {
	var want []byte
	want = protowire.AppendTag(want, 1, protowire.BytesType)
	want = protowire.AppendString(want, "c1")
	want = protowire.AppendTag(want, 3, protowire.VarintType)
	want = protowire.AppendVarint(want, 15)
	got, err := proto.MarshalOptions{Deterministic: true}.Marshal(&SignalProcessRequest{ContainerId: "c1", Signal: 15})
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
