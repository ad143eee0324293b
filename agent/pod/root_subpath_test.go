// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestRootSubPath: one file of a volume and one of its directories lie among the files that the image has there, as
// Kubernetes' subPath means it, and are not what changes in the volume later.
func TestRootSubPath(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.extra = func(root string) error {
		etc := filepath.Join(root, "etc/app")
		return errors.Join(os.MkdirAll(etc+"/conf.d", 0o755), os.WriteFile(etc+"/keep", []byte("image\n"), 0o644),
			os.WriteFile(etc+"/app.conf", []byte("port=1\n"), 0o644), os.WriteFile(etc+"/conf.d/old", []byte("old\n"), 0o644))
	}
	const file, fresh, tree = shared + "app-0123456789abcdef-app.conf", shared + "app-1123456789abcdef-new.conf", shared + "app-2123456789abcdef-conf.d"
	g.copy(t, fileCopy(file, "port=80\n"))
	g.copy(t, fileCopy(fresh, "new\n"))
	g.copy(t, dirCopy(tree))
	g.copy(t, fileCopy(tree+"/a", "a\n"))
	r := request("app", "sh", "-c", "cat /etc/app/keep /etc/app/app.conf /srv/deep/new.conf; ls /etc/app/conf.d; read x; cat /etc/app/app.conf; echo x 2>/dev/null > /etc/app/app.conf || echo read-only")
	r.OCI.Mounts = append(r.OCI.Mounts, bindMount(file, "/etc/app/app.conf", "rprivate", "ro"), bindMount(fresh, "/srv/deep/new.conf", "rprivate", "ro"), bindMount(tree, "/etc/app/conf.d", "rprivate", "ro"))
	g.start(t, r)
	first, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []*kata.CopyFileRequest{linkCopy(file, "other"), linkCopy(file, "/etc/passwd")} {
		wantCode(t, "the file becomes a link", errOf(g.CopyFile(within(t), way)), codes.PermissionDenied, "copy-link")
	}
	wantCode(t, "the file becomes a directory", errOf(g.CopyFile(within(t), dirCopy(file))), codes.FailedPrecondition, "contradicts")
	wantCode(t, "below the file", errOf(g.CopyFile(within(t), fileCopy(file+"/x", "x"))), codes.FailedPrecondition, "contradicts")
	g.copy(t, fileCopy(file, "port=81\n"))
	if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "app", Data: []byte("\n")}); err != nil {
		t.Error(err)
	}
	const want = "image\nport=80\nnew\na\nport=80\nread-only\n"
	if got := string(first.Data) + g.output(t, "app"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	g.remove(t, "app")
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "port=81\n" {
		t.Errorf("the copy afterwards: %q, %v", raw, err)
	}
}

// TestRootSubPathRefuses: a part of what was copied whole is not mounted, and neither name of a mount leads elsewhere.
func TestRootSubPathRefuses(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	outside := t.TempDir()
	g.images.extra = func(root string) error {
		return errors.Join(os.MkdirAll(root+"/etc/app", 0o755), os.Symlink(outside+"/written", root+"/etc/app/absolute"),
			os.Symlink(strings.Repeat("../", 20)+outside+"/written", root+"/etc/app/climbs"), os.Symlink(outside, root+"/etc/app/dir"))
	}
	const tree, file = shared + "app-0123456789abcdef-app", shared + "app-1123456789abcdef-app.conf"
	g.copy(t, dirCopy(tree))
	g.copy(t, dirCopy(tree+"/sub"))
	g.copy(t, fileCopy(tree+"/sub/app.conf", "x"))
	g.copy(t, linkCopy(tree+"/link", "sub/app.conf"))
	g.copy(t, fileCopy(file, "port=80\n"))
	g.start(t, withVolume(request("other", "sleep", "100")))
	for name, source := range map[string]string{
		"a file of a tree": tree + "/sub/app.conf", "a directory of a tree": tree + "/sub", "a link of a tree": tree + "/link", "up from a file": file + "/..",
		"up and down": tree + "/../app-1123456789abcdef-app.conf", "twice a slash": shared + "/app-1123456789abcdef-app.conf", "a slash behind": file + "/",
		"a part of a volume": emptyDir + "/sub", "up from a volume": emptyDir + "/../../../etc", "a copy that never came": shared + "app-3123456789abcdef-app.conf",
		"the name of another container's": shared + "nobody-1123456789abcdef-app.conf", "a NUL byte": file + "\x00", "a dot": shared + "./app-1123456789abcdef-app.conf",
	} {
		r := request("app", "true")
		r.OCI.Mounts = append(r.OCI.Mounts, bindMount(source, "/etc/app/app.conf", "ro"))
		wantCode(t, name, errOf(g.CreateContainer(within(t), r)), codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount")
	}
	for _, place := range []string{"/etc/app/../../x", "etc/app/app.conf", "/", "", "/proc/self/x", "/etc/app/app.conf\x00"} {
		r := request("app", "true")
		r.OCI.Mounts = append(r.OCI.Mounts, bindMount(file, place, "ro"))
		if err := errOf(g.CreateContainer(within(t), r)); err == nil {
			t.Errorf("place %q: no error", place)
			g.remove(t, "app")
		}
	}
	// A link of the image's in the place of the file is followed inside of the container or not at all.
	for _, place := range []string{"/etc/app/absolute", "/etc/app/climbs", "/etc/app/dir/written"} {
		r := request("app", "cat", place)
		r.OCI.Mounts = append(r.OCI.Mounts, bindMount(file, place, "ro"))
		if err := errOf(g.CreateContainer(within(t), r)); err == nil {
			g.remove(t, "app")
		} else {
			t.Logf("%s: %v", place, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("%s: outside of the container there are %v now, %v", place, left, err)
		}
	}
	g.remove(t, "other")
}
