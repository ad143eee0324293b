// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// sharing is a request for a container with a name of the pod's file.
func sharing(name string, mounts []*kata.SharedMount, args ...string) *kata.CreateContainerRequest {
	r := request(name+"0", args...)
	r.OCI.Annotations = map[string]string{"io.kubernetes.cri.container-name": name}
	r.SharedMounts = mounts
	return r
}

func sharedMount(from, source, to, target string) []*kata.SharedMount {
	return []*kata.SharedMount{{Name: "m", SrcCtr: from, SrcPath: source, DstCtr: to, DstPath: target}}
}

// TestRootSharedMounts: what one container's program has mounted another one gets before its own program runs, without
// devices and others' rights, and apart from what happens to the mount later.
func TestRootSharedMounts(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	before := mountPoints(t)
	source := sharing("source", nil, "sh", "-c", "mkdir -p /tmp/m /tmp/plain; ln -s m /tmp/link; sleep 1; busybox mount -t tmpfs t /tmp/m; mkdir /tmp/m/d; "+
		"echo hello > /tmp/m/d/f; busybox mknod /tmp/m/null c 1 3; echo mounted; read x; busybox umount /tmp/m && echo unmounted; sleep 1000")
	source.OCI.Process.Capabilities = &kata.LinuxCapabilities{
		Bounding: []string{"CAP_SYS_ADMIN", "CAP_MKNOD"}, Effective: []string{"CAP_SYS_ADMIN", "CAP_MKNOD"}, Permitted: []string{"CAP_SYS_ADMIN", "CAP_MKNOD"},
	}
	g.start(t, source)
	start := time.Now()
	g.start(t, sharing("target", sharedMount("source", "/tmp/m", "target", "/data"), "sh", "-c",
		"until cat /data/d/f 2>/dev/null; do sleep .1; done; grep -c ' /data tmpfs rw,nosuid,nodev' /proc/self/mounts; until [ -e /data/null ]; do sleep .1; done; (echo x > /data/null) 2>/dev/null || echo nodev; read y; cat /data/d/f"))
	if time.Since(start) < 500*time.Millisecond {
		t.Error("it did not wait for the mount")
	}
	if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "source0", Data: []byte("go\n")}); err != nil {
		t.Fatal(err)
	}
	out := ""
	for !strings.Contains(out, "unmounted") {
		r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "source0", Len: 4096})
		if err != nil || len(r.Data) == 0 {
			t.Fatalf("source: %v after %q", err, out)
		}
		out += string(r.Data)
	}
	if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "target0", Data: []byte("go\n")}); err != nil {
		t.Fatal(err)
	}
	if got := g.output(t, "target0"); got != "hello\n1\nnodev\nhello\n" {
		t.Errorf("target: got %q", got)
	}
	for _, id := range []string{"target0", "source0"} {
		g.remove(t, id)
	}
	if after := mountPoints(t); len(after) != len(before) {
		t.Errorf("mounts in the guest before: %q, after: %q", before, after)
	}
}

// TestRootSharedMountsRefused: nothing is shared but a mount, of another container of the pod's that the request names,
// and no link leads to another.
func TestRootSharedMountsRefused(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, sharing("source", nil, "sh", "-c", "mkdir /tmp/plain; ln -s /data /tmp/link; echo ready; sleep 1000"))
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "source0", Len: 4096}); err != nil || string(r.Data) != "ready\n" {
		t.Fatal(err)
	}
	t.Run("one", func(t *testing.T) {
		for name, tt := range map[string]struct {
			mounts []*kata.SharedMount
			code   codes.Code
			text   string
		}{
			"another's request":    {sharedMount("source", "/data", "other", "/data"), codes.PermissionDenied, "not the request's"},
			"one of no name":       {sharedMount("", "/data", "target", "/data"), codes.PermissionDenied, "not another one"},
			"its own":              {sharedMount("target", "/data", "target", "/data"), codes.PermissionDenied, "not another one"},
			"nobody's":             {sharedMount("nobody", "/data", "target", "/data"), codes.NotFound, "there is no container"},
			"the whole of another": {sharedMount("source", "/", "target", "/data"), codes.PermissionDenied, "no path that is shared"},
			"over the whole":       {sharedMount("source", "/data", "target", "/"), codes.PermissionDenied, "no path that is shared"},
			"another's processes":  {sharedMount("source", "/proc", "target", "/data"), codes.PermissionDenied, "no path that is shared"},
			"over its processes":   {sharedMount("source", "/data", "target", "/proc/self"), codes.PermissionDenied, "no path that is shared"},
			"up":                   {sharedMount("source", "/tmp/../../data", "target", "/data"), codes.PermissionDenied, "no path that is shared"},
			"by a link":            {sharedMount("source", "/tmp/link", "target", "/data"), codes.FailedPrecondition, "cannot be shared"},
			"a directory":          {sharedMount("source", "/tmp/plain", "target", "/data"), codes.FailedPrecondition, "nothing is mounted"},
			"many":                 {make([]*kata.SharedMount, 65), codes.InvalidArgument, "at most"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := sharing("target", tt.mounts, "true")
				r.ContainerId = "target" + strings.ReplaceAll(name, " ", "-")
				r.ContainerId = strings.ReplaceAll(r.ContainerId, "'", "")
				r.ExecId = r.ContainerId
				_, err := g.CreateContainer(within(t), r)
				wantCode(t, name, err, tt.code, tt.text)
			})
		}
	})
	t.Run("of two", func(t *testing.T) {
		twin := sharing("source", nil, "sleep", "1000")
		twin.ContainerId, twin.ExecId = "twin0", "twin0"
		g.start(t, twin)
		_, err := g.CreateContainer(within(t), sharing("late", sharedMount("source", "/data", "late", "/data"), "true"))
		wantCode(t, "of two", err, codes.FailedPrecondition, "several containers")
	})
}
