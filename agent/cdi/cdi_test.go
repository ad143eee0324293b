// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// gpu is a specification whose device is a node that every guest has.
const gpu = `
cdiVersion: "0.6.0"
kind: vendor.example/gpu
containerEdits:
  env: [DRIVER=1, PATH=/driver/bin]
  mounts:
  - {hostPath: /usr/lib/libgpu.so, containerPath: /usr/lib/libgpu.so, options: [rw, suid]}
devices:
- name: "0"
  containerEdits: {deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null}], additionalGids: [44, 0]}
- name: all
  containerEdits: {env: [ALL=yes]}
`

func registry(t *testing.T, files map[string]string) *Registry {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return New([]string{filepath.Join(dir, "absent"), dir})
}

func container() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Env: []string{"PATH=/bin", "A=b"}, User: specs.User{AdditionalGids: []uint32{7}}}, Linux: &specs.Linux{}}
}

// TestEdit gives a container what the devices and their file say, the file's part once, mounts without rights.
func TestEdit(t *testing.T) {
	r := registry(t, map[string]string{"gpu.yaml": gpu, "notes.txt": "no: specification"})
	s := container()
	devices, sources, err := r.Edit([]string{"vendor.example/gpu=0", "vendor.example/gpu=all"}, s)
	if err != nil {
		t.Fatal(err)
	}
	node := specs.LinuxDevice{Path: "/dev/gpu0", Type: "c", Major: 1, Minor: 3}
	mounts := []specs.Mount{{
		Source: "/usr/lib/libgpu.so", Destination: "/usr/lib/libgpu.so", Type: "bind", Options: []string{"rw", "suid", "rbind", "rprivate", "ro", "nosuid", "nodev"},
	}}
	if want := []string{"A=b", "DRIVER=1", "PATH=/driver/bin", "ALL=yes"}; !reflect.DeepEqual(s.Process.Env, want) {
		t.Errorf("environment %q, want %q", s.Process.Env, want)
	}
	if !reflect.DeepEqual(s.Linux.Devices, []specs.LinuxDevice{node}) || !reflect.DeepEqual(devices, s.Linux.Devices) {
		t.Errorf("devices %+v, allowed %+v", s.Linux.Devices, devices)
	}
	if !reflect.DeepEqual(s.Mounts, mounts) || !reflect.DeepEqual(sources, []string{"/usr/lib"}) {
		t.Errorf("mounts %+v, allowed %q", s.Mounts, sources)
	}
	if !reflect.DeepEqual(s.Process.User.AdditionalGids, []uint32{7, 44}) {
		t.Errorf("groups %d: root's comes from no device", s.Process.User.AdditionalGids)
	}
}

func TestEditJSON(t *testing.T) {
	r := registry(t, map[string]string{"a.json": `{"cdiVersion":"0.3.0","kind":"v.example/nic","devices":[{"name":"x","containerEdits":{"env":["NIC=x"]}}]}`})
	s := container()
	if _, _, err := r.Edit([]string{"v.example/nic=x"}, s); err != nil || s.Process.Env[2] != "NIC=x" {
		t.Errorf("got %q, %v", s.Process.Env, err)
	}
}

// TestNamesRefused: a request's name is compared, and is nothing else.
func TestNamesRefused(t *testing.T) {
	r := registry(t, map[string]string{"gpu.yaml": gpu})
	for _, name := range []string{"", "0", "vendor.example/gpu", "vendor.example/gpu=", "vendor.example/gpu=1", "other.example/gpu=0", "vendor.example/gpu=0,x", "../etc/passwd=0", "vendor.example/gpu=0\n", "vendor.example/gpu=*"} {
		if _, _, err := r.Edit([]string{name}, container()); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	twice := registry(t, map[string]string{"a.yaml": gpu, "b.yaml": gpu})
	if _, _, err := twice.Edit([]string{"vendor.example/gpu=all"}, container()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two of one name: got %v", err)
	}
}

// TestSpecificationsRefused: one that wants what no container gets fails the container, and is not passed over.
func TestSpecificationsRefused(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(gpu, old, new, 1) }
	for name, tt := range map[string]struct{ text, want string }{
		"a hook":              {edit("  env: [DRIVER", "  hooks: [{hookName: createContainer, path: /bin/sh}]\n  env: [DRIVER"), "hooks"},
		"a device's hook":     {edit("{env: [ALL=yes]}", "{hooks: [{hookName: poststop, path: /bin/sh}]}"), "hooks"},
		"cache monitoring":    {edit("  env: [DRIVER", "  intelRdt: {closID: x}\n  env: [DRIVER"), "not served"},
		"network devices":     {edit("{env: [ALL=yes]}", "{netDevices: [{hostInterfaceName: eth0, name: eth0}]}"), "not served"},
		"a disk":              {edit("hostPath: /dev/null", "type: b"), "character device"},
		"a relative node":     {edit("path: /dev/gpu0", "path: dev/gpu0"), "clean absolute"},
		"a mount by a parent": {edit("hostPath: /usr/lib/libgpu.so", "hostPath: /usr/../etc"), "clean absolute"},
		"a mount of a type":   {edit("options: [rw", "type: tmpfs, options: [rw"), "bound"},
		"another number":      {edit("hostPath: /dev/null", "hostPath: /dev/null, major: 1, minor: 5"), "1:3 and not 1:5"},
		"no device there":     {edit("hostPath: /dev/null", "hostPath: /dev/gpu-of-nobody"), "no such file"},
		"a file as a device":  {edit("hostPath: /dev/null", "hostPath: /proc/version"), "no character device"},
		"unknown member":      {edit("  env: [DRIVER", "  volumes: []\n  env: [DRIVER"), "volumes"},
		"a member twice":      {gpu + "kind: other.example/gpu\n", "already"},
		"a second document":   {gpu + "---\nkind: x\n", "more than one"},
		"a name twice":        {edit("name: all", `name: "0"`), "taken"},
		"no kind":             {edit("kind: vendor.example/gpu", ""), "VENDOR/CLASS"},
		"no version":          {edit(`cdiVersion: "0.6.0"`, ""), "cdiVersion"},
		"no devices":          {"cdiVersion: '1'\nkind: a.b/c\n", "0 devices"},
		"a bare variable":     {edit("DRIVER=1", "DRIVER"), "variable"},
		"too long":            {gpu + strings.Repeat("#", maxFile), "bytes"},
		"no text":             {"\x00\x01", "control characters"},
	} {
		if _, _, err := registry(t, map[string]string{"gpu.yaml": tt.text}).Edit([]string{"vendor.example/gpu=0"}, container()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tt.want)
		}
	}
}
