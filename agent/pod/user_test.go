// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestRootUserByName: the names of a request are looked up in the container's own root. A link there that leads to the
// guest's accounts leads nowhere.
func TestRootUserByName(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.extra = func(root string) error {
		return firstOf(
			os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n"), 0o644),
			os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nweb:x:102:\nextra:x:200:web\ntape:x:26:\n"), 0o644))
	}
	named := func(id string, u *kata.StringUser) *kata.CreateContainerRequest {
		r := request(id, "sh", "-c", "id -u; id -g; id -G; cat")
		r.StringUser, r.OCI.Process.User = u, &kata.User{UID: 7, GID: 7, AdditionalGids: []uint32{0}}
		return r
	}
	g.start(t, named("app", &kata.StringUser{Uid: "web", AdditionalGids: []string{"tape"}}))
	var got string
	for strings.Count(got, "\n") < 3 {
		r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 100})
		if err != nil || len(r.Data) == 0 {
			t.Fatalf("got %q, then %v", got, err)
		}
		got += string(r.Data)
	}
	if got != "101\n102\n102 26 200\n" && got != "101\n102\n102 200 26\n" {
		t.Errorf("got %q", got)
	}
	exec := func(u *kata.StringUser) error {
		return errOf(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "app", ExecId: "probe", StringUser: u, Process: &kata.Process{Args: []string{"id", "-u"}, Env: []string{"PATH=/bin"}, Cwd: "/"}}))
	}
	if err := exec(&kata.StringUser{Uid: "web", Gid: "tape"}); err != nil {
		t.Fatal(err)
	}
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", ExecId: "probe", Len: 100}); err != nil || string(r.Data) != "101\n" {
		t.Errorf("exec: %q, %v", r.GetData(), err)
	}
	g.wait(t, "app", "probe")
	for name, u := range map[string]*kata.StringUser{
		"nobody there":    {Uid: "daemon"},
		"no such group":   {Uid: "web", Gid: "wheel"},
		"no such further": {Uid: "web", AdditionalGids: []string{"wheel"}},
		"no name":         {Gid: "web"},
		"two in one":      {Uid: "web:root"},
		"a line":          {Uid: "web\nroot"},
		"a long one":      {Uid: strings.Repeat("w", 300)},
		"too large":       {Uid: "4294967295"},
		"negative":        {Uid: "-1"},
	} {
		wantCode(t, name, exec(u), codes.InvalidArgument, "")
		wantCode(t, name, errOf(g.CreateContainer(within(t), named("other", u))), codes.InvalidArgument, "")
	}
	// The container's root turns its own accounts into a link to the guest's.
	passwd := g.dir + "/app/rootfs/etc/passwd"
	if err := firstOf(os.Remove(passwd), os.Symlink("/../../../../../../etc/passwd", passwd)); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "an account of the guest's", exec(&kata.StringUser{Uid: "daemon"}), codes.InvalidArgument, "do not have")
	g.remove(t, "app")
}
