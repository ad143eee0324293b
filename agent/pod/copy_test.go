// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

func fileCopy(path, data string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: unix.S_IFREG | 0o644, FileSize: int64(len(data)), DirMode: 0o755, Data: []byte(data)}
}

func linkCopy(path, target string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: unix.S_IFLNK | 0o777, Data: []byte(target)}
}

func dirCopy(path string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: unix.S_IFDIR | 0o750}
}

func (g *guest) copy(t testing.TB, r *kata.CopyFileRequest) {
	t.Helper()
	if _, err := g.CopyFile(within(t), r); err != nil {
		t.Fatalf("copying %s: %v", r.Path, err)
	}
}

// TestRootCopyFile: what a pod needs: small files, files in pieces, a projected
// token with its ..data link, and its swap while a container has it mounted.
func TestRootCopyFile(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const volume = shared + "app-0123456789abcdef-token"
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-resolv.conf", "nameserver 10.0.0.1\n"))
	g.copy(t, dirCopy(volume))
	g.copy(t, dirCopy(volume+"/..2026_1"))
	g.copy(t, fileCopy(volume+"/..2026_1/token", "first"))
	g.copy(t, linkCopy(volume+"/..data", "..2026_1"))
	g.copy(t, linkCopy(volume+"/token", "..data/token"))
	pieces := bytes.Repeat([]byte("piece "), 1000)
	for at := 0; at < len(pieces); at += 2000 {
		g.copy(t, &kata.CopyFileRequest{Path: volume + "/big", FileMode: unix.S_IFREG | 0o4755, FileSize: int64(len(pieces)), Offset: int64(at), Data: pieces[at : at+2000], Uid: 7, Gid: 8})
		if _, err := os.Lstat(volume + "/big"); at+2000 < len(pieces) && err == nil {
			t.Error("a file has its name before its last piece")
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(volume+"/big", &st); err != nil || st.Mode != unix.S_IFREG|0o755 || st.Uid != 7 || st.Gid != 8 || st.Size != int64(len(pieces)) {
		t.Errorf("big: %+v, %v: want 0755 without setuid, 7:8", st, err)
	}
	r := request("app", "sh", "-c", "cat /etc/resolv.conf /run/token/token; read x; cat /run/token/token; echo message > /dev/termination-log")
	bind := func(from, to string) *kata.Mount {
		return &kata.Mount{Source: from, Destination: to, Type: "bind", Options: []string{"rbind", "rprivate"}}
	}
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-termination-log", ""))
	r.OCI.Mounts = append(r.OCI.Mounts, bind(shared+"app-0123456789abcdef-resolv.conf", "/etc/resolv.conf"), bind(volume, "/run/token"),
		bind(shared+"app-0123456789abcdef-termination-log", "/dev/termination-log"))
	r.OCI.Annotations = map[string]string{"io.kubernetes.container.terminationMessagePath": "/dev/termination-log"}
	g.start(t, r)
	first, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 1000})
	if err != nil || !strings.HasPrefix(string(first.Data), "nameserver 10.0.0.1\n") {
		t.Fatalf("got %q, %v", first.GetData(), err)
	}
	g.copy(t, dirCopy(volume+"/..2026_2"))
	g.copy(t, fileCopy(volume+"/..2026_2/token", "second"))
	g.copy(t, linkCopy(volume+"/..data", "..2026_2"))
	if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "app", Data: []byte("\n")}); err != nil {
		t.Error(err)
	}
	if all := string(first.Data) + g.output(t, "app"); !strings.HasSuffix(all, "second") {
		t.Errorf("after the swap of ..data: got %q", all)
	}
	d, err := g.GetDiagnosticData(within(t), &kata.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: "app"})
	if err != nil || d.Data != "message\n" {
		t.Errorf("termination message: %v, %v", d, err)
	}
	g.remove(t, "app")
}

// TestRootCopyFileRefuses names what each request attacks. CVE-2026-41326 and
// GHSA-q49m-57vm-c8cc wrote through links that the host had copied first.
func TestRootCopyFileRefuses(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const tree = shared + "app-0123456789abcdef-tree"
	g.copy(t, dirCopy(tree))
	g.copy(t, dirCopy(tree+"/inner"))
	g.copy(t, fileCopy(tree+"/file", "x"))
	g.copy(t, linkCopy(tree+"/link", "inner"))
	// A link that no request could make, as if a container had: it owns the mount.
	if err := os.Symlink("/etc", tree+"/planted"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		req  *kata.CopyFileRequest
		code codes.Code
	}{
		"the guest's own files":      {fileCopy("/etc/passwd", "x"), codes.PermissionDenied},
		"beside the directory":       {fileCopy("/run/kata-containers/shared/containers-x/f", "x"), codes.PermissionDenied},
		"the directory itself":       {dirCopy("/run/kata-containers/shared/containers"), codes.PermissionDenied},
		"up by dots":                 {fileCopy(shared+"../../sandbox/resolv.conf", "x"), codes.PermissionDenied},
		"dots in the middle":         {fileCopy(tree+"/inner/../../x", "x"), codes.PermissionDenied},
		"double slash":               {fileCopy(tree+"//etc", "x"), codes.PermissionDenied},
		"through a link":             {fileCopy(tree+"/link/f", "x"), codes.PermissionDenied},
		"CVE-2026-41326":             {fileCopy(tree+"/planted/cron.d-x", "x"), codes.PermissionDenied},
		"through a link, directory":  {dirCopy(tree + "/planted/new"), codes.PermissionDenied},
		"link at the top":            {linkCopy(shared+"app-0123456789abcdef-l", "x"), codes.PermissionDenied},
		"absolute link":              {linkCopy(tree+"/abs", "/etc"), codes.PermissionDenied},
		"link that climbs":           {linkCopy(tree+"/up", "../../../etc"), codes.PermissionDenied},
		"link that climbs later":     {linkCopy(tree+"/up", "inner/../../x"), codes.PermissionDenied},
		"empty link":                 {linkCopy(tree+"/none", ""), codes.PermissionDenied},
		"link with a NUL":            {linkCopy(tree+"/nul", "a\x00b"), codes.PermissionDenied},
		"device":                     {&kata.CopyFileRequest{Path: tree + "/dev", FileMode: unix.S_IFBLK | 0o666}, codes.PermissionDenied},
		"fifo":                       {&kata.CopyFileRequest{Path: tree + "/fifo", FileMode: unix.S_IFIFO | 0o666}, codes.PermissionDenied},
		"no type":                    {&kata.CopyFileRequest{Path: tree + "/x", FileMode: 0o666}, codes.PermissionDenied},
		"negative owner":             {&kata.CopyFileRequest{Path: tree + "/x", FileMode: unix.S_IFREG, Uid: -1}, codes.InvalidArgument},
		"negative offset":            {&kata.CopyFileRequest{Path: tree + "/x", FileMode: unix.S_IFREG, Offset: -1}, codes.InvalidArgument},
		"huge offset":                {&kata.CopyFileRequest{Path: tree + "/x", FileMode: unix.S_IFREG, FileSize: 1, Offset: 1 << 40, Data: []byte("x")}, codes.InvalidArgument},
		"huge file":                  {&kata.CopyFileRequest{Path: tree + "/x", FileMode: unix.S_IFREG, FileSize: 1 << 40}, codes.InvalidArgument},
		"more than it said":          {&kata.CopyFileRequest{Path: tree + "/x", FileMode: unix.S_IFREG, FileSize: 1, Data: []byte("xy")}, codes.FailedPrecondition},
		"piece without a beginning":  {&kata.CopyFileRequest{Path: tree + "/y", FileMode: unix.S_IFREG, FileSize: 9, Offset: 5, Data: []byte("x")}, codes.FailedPrecondition},
		"file over a directory":      {fileCopy(tree+"/inner", "x"), codes.FailedPrecondition},
		"directory over a file":      {dirCopy(tree + "/file"), codes.FailedPrecondition},
		"below a file":               {fileCopy(tree+"/file/x", "x"), codes.FailedPrecondition},
		"name of an unfinished file": {fileCopy(tree+"/x.casemate-part", "x"), codes.PermissionDenied},
		"very deep":                  {fileCopy(tree+strings.Repeat("/d", 20), "x"), codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, name, errOf(g.CopyFile(within(t), tt.req)), tt.code, "")
		})
	}
	if found, _ := filepath.Glob("/etc/*cron.d-x*"); len(found) > 0 {
		t.Errorf("written outside: %v", found)
	}
	// The message of a container whose mount names what was never copied.
	r := request("spy", "true")
	r.OCI.Annotations = map[string]string{"io.kubernetes.container.terminationMessagePath": "/x"}
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: g.dir + "/sandbox/shm", Destination: "/x", Type: "bind", Options: []string{"rbind"}})
	g.start(t, r)
	wantCode(t, "message outside the copies", errOf(g.GetDiagnosticData(within(t), &kata.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: "spy"})), codes.PermissionDenied, "path")
	wantCode(t, "other diagnostic data", errOf(g.GetDiagnosticData(within(t), &kata.GetDiagnosticDataRequest{LogType: "kernel", ContainerId: "spy"})), codes.InvalidArgument, "not served")
	g.remove(t, "spy")
}
