// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/casemate/casemate/agent/api/kata"
)

func inputJSON(t *testing.T, msg proto.Message) string {
	t.Helper()
	v, err := inputOf(msg)
	if err != nil {
		t.Fatal(err)
	}
	return plain(t, v)
}

func plain(t *testing.T, v ast.Value) string {
	t.Helper()
	value, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value) // keys in order
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestInput pins the document's form field by field.
func TestInput(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		name string
		msg  proto.Message
		want string
	}{
		{"defaults", &kata.CreateContainerRequest{},
			`{"OCI":null,"container_id":"","devices":[],"exec_id":"","sandbox_pidns":false,"shared_mounts":[],"stderr_port":0,"stdin_port":0,"stdout_port":0,"storages":[],"string_user":null}`},
		{"empty message is not null", &kata.CreateContainerRequest{StringUser: &kata.StringUser{}},
			`{"OCI":null,"container_id":"","devices":[],"exec_id":"","sandbox_pidns":false,"shared_mounts":[],"stderr_port":0,"stdin_port":0,"stdout_port":0,"storages":[],"string_user":{"additionalGids":[],"gid":"","uid":""}}`},
		{"type", &kata.Mount{Destination: "/a", Type: "bind"}, `{"destination":"/a","options":[],"source":"","type_":"bind"}`},
		{"Type", &kata.LinuxNamespace{Type: "pid"}, `{"Path":"","Type":"pid"}`},
		{"enum", &kata.IPAddress{Family: kata.IPFamily(1), Address: "::2"}, `{"address":"::2","family":1,"mask":""}`},
		{"names as written", &kata.Interface{HwAddr: "02:00", Mtu: 1<<64 - 1},
			`{"IPAddresses":[],"device":"","devicePath":"","hwAddr":"02:00","mtu":18446744073709551615,"name":"","raw_flags":0,"type_":""}`},
		{"negative", &kata.POSIXRlimit{Hard: 1<<64 - 1}, `{"Hard":18446744073709551615,"Soft":0,"Type":""}`},
		{"bytes", &kata.WriteStreamRequest{Data: []byte{0, 255}}, `{"container_id":"","data":[0,255],"exec_id":""}`},
		{"no bytes", &kata.WriteStreamRequest{}, `{"container_id":"","data":[],"exec_id":""}`},
		{"optional", &kata.MemAgentMemcgConfig{Swap: &yes},
			`{"disabled":null,"eviction_psi_percent_limit":null,"eviction_run_aging_count_min":null,"period_psi_percent_limit":null,"period_secs":null,"swap":true,"swappiness_max":null}`},
		{"one of, none", &kata.LinuxSyscall{Names: []string{"x"}}, `{"Action":"","Args":[],"ErrnoRet":null,"Names":["x"]}`},
		{"one of", &kata.LinuxSyscall{ErrnoRet: &kata.LinuxSyscall_Errnoret{Errnoret: 38}}, `{"Action":"","Args":[],"ErrnoRet":{"Errnoret":38},"Names":[]}`},
		{"regular file", &kata.CopyFileRequest{Path: "/p", FileSize: 9, FileMode: 0o100644, DirMode: 0o755, Uid: -1, Gid: 2, Offset: 3, Data: []byte("secret")},
			`{"dir_mode":493,"file_mode":33188,"file_size":9,"file_type":"Regular","gid":2,"offset":3,"path":"/p","symlink_target":null,"uid":-1}`},
		{"directory", &kata.CopyFileRequest{FileMode: 0o040755},
			`{"dir_mode":0,"file_mode":16877,"file_size":0,"file_type":"Directory","gid":0,"offset":0,"path":"","symlink_target":null,"uid":0}`},
		{"link", &kata.CopyFileRequest{FileMode: 0o120777, Data: []byte("..data")},
			`{"dir_mode":0,"file_mode":41471,"file_size":0,"file_type":"Symlink","gid":0,"offset":0,"path":"","symlink_target":"..data","uid":0}`},
		{"no type", &kata.CopyFileRequest{FileMode: 0o644},
			`{"dir_mode":0,"file_mode":420,"file_size":0,"file_type":"Unknown","gid":0,"offset":0,"path":"","symlink_target":null,"uid":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := inputJSON(t, tt.msg); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestInputHasEveryField walks all requests: whatever is added to the API is in the input, null or a default.
func TestInputHasEveryField(t *testing.T) {
	methods := kata.File_agent_api_kata_agent_proto.Services().ByName("AgentService").Methods()
	for i := range methods.Len() {
		d := methods.Get(i).Input()
		if d.Name() == "CopyFileRequest" {
			continue
		}
		kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		v, err := inputOf(kind.New().Interface())
		if err != nil {
			t.Errorf("%s: %v", d.Name(), err)
			continue
		}
		o, ok := v.(ast.Object)
		if !ok || o.Len() != d.Fields().Len() {
			t.Errorf("%s: got %v, want %d fields", d.Name(), v, d.Fields().Len())
		}
	}
}

// FuzzInput gives a request of any bytes to the walker and the result to policies.
func FuzzInput(f *testing.F) {
	seed := func(kind uint8, m proto.Message) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, raw)
	}
	seed(0, create(cid, []string{"/pause"}, []string{"PATH=/bin"}))
	seed(1, link(shared+"sa/token", "..data/token"))
	seed(2, exec("c", "/app", "--probe"))
	seed(3, iface("eth0", "veth", "10.0.0.2"))
	builtin, err := BuiltIn(false)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		messages := []proto.Message{new(kata.CreateContainerRequest), new(kata.CopyFileRequest), new(kata.ExecProcessRequest), new(kata.UpdateInterfaceRequest)}
		msg := messages[int(kind)%len(messages)]
		if proto.Unmarshal(raw, msg) != nil {
			return
		}
		v, err := inputOf(msg)
		if err != nil {
			return
		}
		if text := plain(t, v); !json.Valid([]byte(text)) {
			t.Errorf("not JSON: %s", text)
		}
		d, err := builtin.Decide(t.Context(), string(msg.ProtoReflect().Descriptor().Name()), msg)
		if err != nil {
			codeOf(t, err)
			return
		}
		d.Undo()
		if _, ok := msg.(*kata.ExecProcessRequest); ok {
			t.Error("exec allowed")
		}
		if len(builtin.state) != 0 {
			t.Errorf("state left: %v", builtin.state)
		}
	})
}
