// SPDX-License-Identifier: Apache-2.0

//go:build root || vm

package chain

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// podContainer is a request in the form of a guest pull.
func podContainer(id, image string, args ...string) *kata.CreateContainerRequest {
	kind := "container"
	if image == "pause" {
		kind = "sandbox"
	}
	return &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*kata.Storage{{
			Driver: "image_guest_pull", Source: image, Fstype: "overlay", MountPoint: "/run/kata-containers/" + id + "/rootfs",
			DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"` + kind + `"}}`},
		}},
		OCI: &kata.Spec{
			Version: "1.1.0", Annotations: map[string]string{"io.kubernetes.cri.container-type": kind},
			Process: &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: &kata.User{}, Capabilities: &kata.LinuxCapabilities{}, NoNewPrivileges: true},
			Root:    &kata.Root{Path: "/run/kata-containers/" + id + "/rootfs"},
			Mounts: []*kata.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			},
			Linux: &kata.Linux{Namespaces: []*kata.LinuxNamespace{{Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "pid"}}},
		},
	}
}

func wantRefused(t *testing.T, what string, err error, text string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), text) {
		t.Errorf("%s: got %v %q, want %v with %q", what, s.Code(), s.Message(), codes.PermissionDenied, text)
	}
}

func second[T any](_ T, err error) error { return err }
