// SPDX-License-Identifier: Apache-2.0

package pod_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// maxSteps bounds one sequence: a container takes tens of milliseconds.
	maxSteps = 40
	// canary stands in what a container is given and in errors of the guest's own; no answer of an error may have it.
	canary = "canary-secret"
)

// chooser turns bytes into choices; at their end it chooses the first.
type chooser struct{ data []byte }

func (c *chooser) next() int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b)
}

func pick[T any](c *chooser, list ...T) T { return list[c.next()%len(list)] }

// world is a guest with what a sequence is measured by.
type world struct {
	*guest
	c      *chooser
	opened bool
	watch  string // a directory of the guest that nobody may change
	before map[string]string
	hot    []string // paths at which there is something now
	aim    string   // what was planted last, for the next request to meet
}

// step makes and sends one request, or has a container do what containers can.
func (w *world) step(t *testing.T) {
	n := w.c.next() % 20
	if w.aim != "" {
		n = pick(w.c, 9, 9, 3)
	}
	switch {
	case n == 0:
		w.opened = w.door.Open(allowAll{}) || w.opened
	case n == 1 || n == 19 && w.c.next()%2 == 0:
		w.plant(t)
	default:
		m := w.request(n)
		limit := 5 * time.Second
		if w.opened && waits(m) {
			limit = 20 * time.Millisecond
		}
		err := w.send(t, m, limit)
		w.judge(t, m, err)
		if copied, ok := m.(*kata.CopyFileRequest); ok && err == nil {
			w.hot = append(w.hot, copied.GetPath())
		}
	}
}

func waits(m proto.Message) bool {
	switch m.(type) {
	case *kata.WaitProcessRequest, *kata.ReadStreamRequest, *kata.GetOOMEventRequest, *kata.WriteStreamRequest:
		return true
	}
	return false
}

func (w *world) id() string {
	if w.c.next()%4 > 0 {
		return pick(w.c, "aa", "aa", "bb")
	}
	return pick(w.c, "cc", "", "shared", "sandbox", "namespaces", "../x", "a/b", "..", ".", "aa\n", strings.Repeat("x", 200))
}

func (w *world) execID() string { return pick(w.c, "", "aa", "e1", "e2", "../e", "a/b") }

// path is a place that a host may name: mostly ones that meet.
func (w *world) path() string {
	if at := w.aim; at != "" {
		w.aim = ""
		return at + pick(w.c, "/f", "/f", "", "/d")
	}
	if n := len(w.hot); n > 0 && w.c.next()%2 == 0 {
		n = max(0, n-3) + w.c.next()%min(n, 3) // what came last is of most interest
		return w.hot[n] + pick(w.c, "/f", "", "/d", "/l")
	}
	top := pick(w.c, "aa-0123456789abcdef-t", "aa-0123456789abcdef-t", "aa-0123456789abcdef-t", "aa-0123456789abcdef-u", "watchable", "passthrough", "aa", "..", "", "vol-0123456789abcdef-v")
	below := pick(w.c, "", "/f", "/d", "/d/f", "/l/f", "/rootfs/local/v", "/..data", "/../x", "//f", "/f.casemate-part")
	if w.c.next()%3 > 0 {
		return pick(w.c, shared+top+below, shared+top)
	}
	return pick(w.c, "/run/kata-containers/sandbox/ephemeral/v", "/run/kata-containers/sandbox/ephemeral/v/w",
		"/run/kata-containers/sandbox/shm", "/run/kata-containers/sandbox/shm/x/y", "/run/kata-containers/sandbox", w.watch, w.watch+"/f", "/etc")
}

func (w *world) request(n int) proto.Message {
	switch n {
	case 2, 3:
		return w.createRequest()
	case 4:
		return &kata.CreateSandboxRequest{SandboxId: pick(w.c, sandboxID, "", "../s"), Hostname: pick(w.c, "pod", "a b", ""), Storages: []*kata.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: pick(w.c, w.dir+"/sandbox/shm", w.path()),
		}}}
	case 5:
		return &kata.StartContainerRequest{ContainerId: w.id()}
	case 6:
		return &kata.SignalProcessRequest{ContainerId: w.id(), ExecId: w.execID(), Signal: uint32(pick(w.c, 9, 15, 0, 64, 65, 1<<30))}
	case 7:
		return &kata.WaitProcessRequest{ContainerId: w.id(), ExecId: w.execID()}
	case 8:
		return &kata.RemoveContainerRequest{ContainerId: w.id(), Timeout: uint32(pick(w.c, 0, 1))}
	case 9, 10, 11, 12:
		return w.copyRequest()
	case 13:
		r := &kata.ExecProcessRequest{ContainerId: w.id(), ExecId: w.execID(), Process: &kata.Process{Args: []string{"sh", "-c", pick(w.c, "exit 3", "sleep 100 & echo x", "cat")}, Env: []string{"PATH=/bin", "S=" + canary}, Cwd: pick(w.c, "/", "/proc/self/fd/7", "")}}
		if w.c.next()%4 == 0 {
			r.Process = nil
		}
		return r
	case 14:
		return &kata.ReadStreamRequest{ContainerId: w.id(), ExecId: w.execID(), Len: uint32(pick(w.c, 100, 0, 1<<31))}
	case 15:
		return &kata.WriteStreamRequest{ContainerId: w.id(), ExecId: w.execID(), Data: make([]byte, pick(w.c, 0, 1, 200000))}
	case 16:
		return pick[proto.Message](w.c, &kata.StatsContainerRequest{ContainerId: w.id()}, &kata.PauseContainerRequest{ContainerId: w.id()}, &kata.ResumeContainerRequest{ContainerId: w.id()},
			&kata.TtyWinResizeRequest{ContainerId: w.id(), Row: 1 << 20}, &kata.CloseStdinRequest{ContainerId: w.id()}, &kata.GetOOMEventRequest{},
			&kata.UpdateContainerRequest{ContainerId: w.id(), Resources: &kata.LinuxResources{CPU: &kata.LinuxCPU{Cpus: pick(w.c, "0", "../x", "0-9999999")}}})
	case 17:
		return pick[proto.Message](w.c, &kata.VolumeStatsRequest{VolumeGuestPath: w.path()}, &kata.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: w.id()}, &kata.GuestDetailsRequest{})
	case 18:
		return pick[proto.Message](w.c, &kata.SetPolicyRequest{Policy: "x"}, &kata.SetGuestDateTimeRequest{Sec: 1}, &kata.AddSwapRequest{}, &kata.ReseedRandomDevRequest{}, &kata.UpdateEphemeralMountsRequest{})
	}
	if w.c.next()%8 == 0 {
		return &kata.DestroySandboxRequest{}
	}
	return &kata.RemoveStaleVirtiofsShareMountsRequest{}
}

func (w *world) createRequest() *kata.CreateContainerRequest {
	id := w.id()
	r := request(id, "sh", "-c", pick(w.c, "cat", "exit 1", "sleep 100 & exit 0"))
	r.OCI.Process.Env = append(r.OCI.Process.Env, "S="+canary)
	if w.c.next()%8 == 7 {
		r.Storages[0].Source = "denied.example/x" // the failure's own error has the canary
	}
	for range max(0, w.c.next()%4-1) {
		switch at := w.path(); pick(w.c, 0, 1, 2) {
		case 0:
			r.Storages = append(r.Storages, &kata.Storage{Driver: pick(w.c, "ephemeral", "local", "blk"), Source: "tmpfs", Fstype: "tmpfs", MountPoint: at})
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: at, Destination: "/data", Type: "bind", Options: []string{"rbind", "rw"}})
		case 1:
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: at, Destination: pick(w.c, "/data", "/proc/x", "/etc/f", "/"), Type: "bind", Options: []string{"rbind", "rw"}})
			r.OCI.Annotations = map[string]string{"io.kubernetes.container.terminationMessagePath": "/data"}
		case 2:
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: at, Destination: "/data", Type: pick(w.c, "tmpfs", "ext4", "proc", "sysfs")})
		}
	}
	return r
}

func (w *world) copyRequest() *kata.CopyFileRequest {
	mode := uint32(pick(w.c, unix.S_IFREG, unix.S_IFDIR, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFBLK, unix.S_IFIFO, 0))
	r := &kata.CopyFileRequest{Path: w.path(), FileMode: mode | 0o6755, DirMode: 0o755, FileSize: 3, Data: []byte("abc")}
	switch mode {
	case unix.S_IFLNK:
		r.Data = []byte(pick(w.c, "f", "d", "..data/f", "/etc", w.watch, "../../../../"+w.watch, "..", ""))
	case unix.S_IFREG:
		r.Offset = int64(pick(w.c, 0, 0, 0, 0, 1, -1, 1<<40))
	}
	return r
}

// plant does what a container's root can in a tree or volume that it has mounted: links, pipes and devices where the
// host's next request is expected.
func (w *world) plant(t *testing.T) {
	dir := pick(w.c, append([]string{w.dir + "/sandbox/shm", w.dir + "/sandbox/ephemeral/v"}, w.hot...)...)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return
	}
	at := filepath.Join(dir, pick(w.c, "d", "f", "l", "x", "f.casemate-part", "l.casemate-part"))
	_ = os.RemoveAll(at)
	var err error
	switch w.c.next() % 4 {
	case 0:
		err = os.Symlink(w.watch, at)
	case 1:
		err = unix.Mkfifo(at, 0o666)
	case 2:
		err = os.Symlink("/etc", at)
	case 3:
		err = unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.hot, w.aim = append(w.hot, at), at
}

// judge holds what is true of every answer.
func (w *world) judge(t *testing.T, m proto.Message, err error) {
	t.Helper()
	if errors.Is(err, context.DeadlineExceeded) { // the client's own word
		err = status.FromContextError(err).Err()
	}
	s := status.Convert(err)
	name := string(m.ProtoReflect().Descriptor().Name())
	switch {
	case !w.opened && (s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), name+" is blocked by policy: door-closed: ")):
		t.Fatalf("a closed door answers %s with %v", name, err)
	case s.Code() == codes.DeadlineExceeded && !waits(m):
		t.Fatalf("%s hangs: %v", name, m)
	case s.Code() == codes.Internal && s.Message() != "internal error", s.Code() == codes.Unknown:
		t.Fatalf("%s tells more than a phrase: %v", name, err)
	case strings.Contains(s.Message(), canary):
		t.Fatalf("%s tells a secret: %v", name, err)
	}
	if _, err := w.health.Check(within(t), &kata.CheckRequest{}); err != nil {
		t.Fatalf("after %s health says %v", name, err)
	}
	if after := census(t, w.watch); !maps.Equal(w.before, after) {
		t.Fatalf("%s %v changed the guest: %v, want %v", name, m, after, w.before)
	}
	w.checkCopies(t, m)
	w.checkMounts(t, m)
}

// checkCopies: a tree of copies is no link, and what the host made in one has no set-user-id bit.
func (w *world) checkCopies(t *testing.T, m proto.Message) {
	entries, _ := os.ReadDir(shared)
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 {
			t.Fatalf("%v left a link at the top: %s", m, e.Name())
		}
	}
	_ = filepath.WalkDir(shared, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Fatalf("%v made %s with mode %v", m, path, info.Mode())
		}
		return nil
	})
}

// checkMounts: nothing is mounted but in the pod's directory.
func (w *world) checkMounts(t *testing.T, m proto.Message) {
	for _, at := range mountPoints(t) {
		if strings.HasPrefix(at, w.watch) || strings.HasPrefix(at, "/etc/") && at != "/etc/resolv.conf" && !slices.Contains(w.mounted, at) {
			t.Fatalf("%v mounted on %s", m, at)
		}
	}
}

// census is the names below dir with what they are.
func census(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), info.Size())
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(raw)
		}
		out[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// runSequence reads a sequence of requests from data and holds after each what design and security rules promise:
// a closed door, health, no word too many, nothing of the guest written, read or mounted over; at the end nothing left.
func runSequence(t *testing.T, data []byte) {
	g := startJudgedGuest(t, nil, nil, nil)
	watch := filepath.Join("/run", fmt.Sprintf("casemate-watch-%d", os.Getpid()))
	if err := os.MkdirAll(watch, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(watch+"/f", []byte("the guest's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(watch) })
	w := &world{guest: g, c: &chooser{data}, watch: watch, before: census(t, watch)}
	for range maxSteps {
		if len(w.c.data) == 0 {
			break
		}
		w.step(t)
	}
	w.c.data = nil
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	if err := g.service.Close(ctx); err != nil {
		t.Errorf("ending the pod: %v", err)
	}
	if left := mountPoints(t); slices.ContainsFunc(left, func(at string) bool { return strings.HasPrefix(at, g.dir+"/") }) {
		t.Errorf("mounts are left below %s: %v", g.dir, left)
	}
}

// opening is the beginning of a sequence that opens the door and makes the sandbox, so that what follows counts.
var opening = []byte{0, 4, 0, 0, 0, 0, 0, 0, 0}

// throughLink is CVE-2026-41326 in two requests and a container's doing: a directory is copied, a link out of it
// appears below, a file is copied through the link.
var throughLink = append(slices.Clone(opening), 9, 1, 0, 0, 1, 0, 1, 2, 2, 0, 0, 0, 0, 0, 0)

// FuzzSequence drives sequences of requests, not single ones: CVE-2026-41326 and its kin took two.
func FuzzSequence(f *testing.F) {
	f.Add(opening)
	f.Add(throughLink)
	f.Add(append(slices.Clone(opening), 2, 1, 0, 0, 0, 0, 0, 5, 1, 0, 13, 1, 0, 2, 0, 0, 1, 7, 1, 0, 0, 8, 1, 0, 0))
	f.Fuzz(runSequence)
}
