// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/casemate/casemate/agent/api/kata"
)

// fill sets every field that m has, down to a depth, by one kind of exaggeration.
func fill(m protoreflect.Message, kind, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap():
			table := m.Mutable(fd).Map()
			if fd.MapValue().Kind() == protoreflect.StringKind {
				table.Set(protoreflect.ValueOfString(text(kind)).MapKey(), protoreflect.ValueOfString(text(kind)))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range 1 + 70*kind {
				if fd.Kind() != protoreflect.MessageKind {
					list.Append(scalar(fd, kind))
				} else if e := list.AppendMutable(); depth > 0 {
					fill(e.Message(), kind, depth-1)
				}
			}
		case fd.Kind() == protoreflect.MessageKind:
			if depth > 0 {
				fill(m.Mutable(fd).Message(), kind, depth-1)
			}
		default:
			m.Set(fd, scalar(fd, kind))
		}
	}
}

func text(kind int) string {
	return []string{"/../../etc/x", "aa", strings.Repeat("y", 4096)}[kind]
}

func scalar(fd protoreflect.FieldDescriptor, kind int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(kind))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(strings.Repeat("\x00", 1<<(8*kind))))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(-1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<32 - 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-1 << 31)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<64 - 1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(-1)
	default:
		return protoreflect.ValueOfInt64(-1 << 63)
	}
}

// TestRootEveryRequestExaggerated sends each request of the API empty, and with every field set to what leads out, to
// what contradicts the rest, and to what is huge: before there is a sandbox, and with a container that runs.
func TestRootEveryRequestExaggerated(t *testing.T) {
	g := startGuest(t)
	methods := kata.File_agent_api_kata_agent_proto.Services().ByName("AgentService").Methods()
	round := func() {
		for i := range methods.Len() {
			m := methods.Get(i)
			if m.Name() == "DestroySandbox" {
				continue
			}
			for kind := -1; kind < 3; kind++ {
				in, _ := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
				out, _ := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
				msg := in.New()
				if kind >= 0 {
					fill(msg, kind, 3)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				err := g.client.Call(ctx, "grpc.AgentService", string(m.Name()), msg.Interface(), out.New().Interface())
				cancel()
				if s := status.Convert(err); s.Code() == codes.Internal && s.Message() != "internal error" {
					t.Errorf("%s, kind %d: %v", m.Name(), kind, err)
				}
				if _, err := g.health.Check(within(t), &kata.CheckRequest{}); err != nil {
					t.Fatalf("%s, kind %d: health says %v", m.Name(), kind, err)
				}
			}
		}
	}
	round()
	g.sandbox(t)
	g.start(t, request("aa", "sh", "-c", "echo alive; cat"))
	round()
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "aa", Len: 100}); err != nil && status.Code(err) != codes.InvalidArgument {
		t.Errorf("afterwards: %v, %v", r, err)
	}
	g.start(t, request("bb", "true"))
	if _, err := os.Lstat("/etc/x"); err == nil {
		t.Error("something was made in /etc")
	}
}

// TestRootThousandContainers asks for a thousand at the same time: some are refused, and the agent answers.
func TestRootThousandContainers(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.wait = make(chan struct{})
	// The protocol has no word for a caller that gives up, but the time that it would wait.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var exhausted atomic.Int32
	for i := range 1000 {
		all.Go(func() {
			if _, err := g.CreateContainer(ctx, request(fmt.Sprintf("many%d", i), "true")); status.Code(err) == codes.ResourceExhausted {
				exhausted.Add(1)
			}
		})
	}
	for deadline := time.Now().Add(timeLimit); exhausted.Load() < 1000-256; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 1000 were refused, want %d", exhausted.Load(), 1000-256)
		}
	}
	if _, err := g.health.Check(within(t), &kata.CheckRequest{}); err != nil {
		t.Error(err)
	}
	all.Wait()
	close(g.images.wait)
	for deadline := time.Now().Add(timeLimit); ; time.Sleep(5 * time.Millisecond) {
		if _, err := g.CreateContainer(within(t), request("one", "true")); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after the callers have gone: %v", err)
		}
	}
	g.remove(t, "one")
}

// TestRootDuplicateCreates: of many creations with one id one is made.
func TestRootDuplicateCreates(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	var all sync.WaitGroup
	var made, refused atomic.Int32
	for range 16 {
		all.Go(func() {
			switch _, err := g.CreateContainer(within(t), request("twin", "sleep", "100")); status.Code(err) {
			case codes.OK:
				made.Add(1)
			case codes.AlreadyExists:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d made, %d refused", made.Load(), refused.Load())
	}
	// And many that remove it.
	for range 8 {
		all.Go(func() {
			_, err := g.RemoveContainer(within(t), &kata.RemoveContainerRequest{ContainerId: "twin"})
			if err != nil && status.Code(err) != codes.InvalidArgument {
				t.Error(err)
			}
		})
	}
	all.Wait()
	g.start(t, request("twin", "true"))
	g.remove(t, "twin")
}

// TestRootWaitBeforeStart: who waits for what was not started yet gets its end, and so does who asks afterwards.
func TestRootWaitBeforeStart(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	if _, err := g.CreateContainer(within(t), request("early", "sh", "-c", "exit 5")); err != nil {
		t.Fatal(err)
	}
	got := make(chan int32, 1)
	go func() { got <- g.wait(t, "early", "early") }()
	select {
	case code := <-got:
		t.Fatalf("the wait ended with %d before the start", code)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "early"}); err != nil {
		t.Fatal(err)
	}
	if first, second := <-got, g.wait(t, "early", ""); first != 5 || second != 5 {
		t.Errorf("got %d and %d, want 5", first, second)
	}
	g.remove(t, "early")
}

// TestRootTwoReaders: what two readers of one stream get is together what was written, each byte once.
func TestRootTwoReaders(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const lines = 20000
	g.start(t, request("talk", "busybox", "seq", fmt.Sprint(lines)))
	var all sync.WaitGroup
	var total atomic.Int64
	for range 2 {
		all.Go(func() { total.Add(int64(len(g.output(t, "talk")))) })
	}
	all.Wait()
	want := 0
	for i := range lines {
		want += len(fmt.Sprintln(i + 1))
	}
	if total.Load() != int64(want) {
		t.Errorf("two readers got %d bytes, want %d", total.Load(), want)
	}
	g.remove(t, "talk")
}

// TestRootClientVanishesInMidCreate: a shim that dies while an image is pulled leaves nothing, and its id is free.
func TestRootClientVanishesInMidCreate(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.wait, g.images.begun = make(chan struct{}), make(chan struct{}, 1)
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	other := kata.NewTTRPCAgentServiceClient(ttrpc.NewClient(conn))
	done := make(chan error, 1)
	go func() { done <- errOf(other.CreateContainer(within(t), request("orphan", "true"))) }()
	<-g.images.begun
	if err := errOf(g.CreateContainer(within(t), request("orphan", "true"))); status.Code(err) != codes.AlreadyExists {
		t.Fatalf("got %v, want an id that is taken", err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a creation over a closed connection succeeded")
	}
	close(g.images.wait)
	for deadline := time.Now().Add(timeLimit); ; time.Sleep(time.Millisecond) {
		if err = errOf(g.CreateContainer(within(t), request("orphan", "true"))); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("the id is still taken: %v", err)
	}
	g.remove(t, "orphan")
}

// TestRootCopiesHaveAnEnd: what the host copies has its own file system, with an end; the agent works on.
func TestRootCopiesHaveAnEnd(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	block := strings.Repeat("z", 3<<20)
	var err error
	for i := 0; i < 200 && err == nil; i++ {
		_, err = g.CopyFile(within(t), fileCopy(fmt.Sprintf("%sapp-0123456789abcdef-%d", shared, i), block))
	}
	wantCode(t, "many bytes", err, codes.ResourceExhausted, "no space")
	g.start(t, request("app", "true"))
	g.remove(t, "app")
}

// TestRootIDsOfThePod: a container's directory is never one of the pod's own.
func TestRootIDsOfThePod(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	for _, id := range []string{"shared", "sandbox", "namespaces"} {
		wantCode(t, id, errOf(g.CreateContainer(within(t), request(id, "true"))), codes.InvalidArgument, "is no name")
	}
	for _, dir := range []string{"shared/containers", "sandbox/shm", "namespaces"} {
		if _, err := os.Stat(g.dir + "/" + dir); err != nil {
			t.Error(err)
		}
	}
}

// TestRootVolumesAreTheWorkloads: nothing is copied into a volume, or mounted into one, or made of its inside; the
// directories around it are given to nobody.
func TestRootVolumesAreTheWorkloads(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const tree = shared + "app-0123456789abcdef-tree"
	at := func(path string) func(*kata.Storage) {
		return func(st *kata.Storage) { st.MountPoint = path }
	}
	g.start(t, withVolume(request("own", "sleep", "100"), at(tree+"/rootfs/local/v")))
	for _, path := range []string{tree + "/rootfs/local/v/evil", tree + "/rootfs/local/v", tree + "/x", tree} {
		wantCode(t, "copy to "+path, errOf(g.CopyFile(within(t), fileCopy(path, "x"))), codes.PermissionDenied, "holds a volume")
	}
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-copied/f", "x"))
	g.start(t, withVolume(request("mem", "sleep", "100")))
	for _, path := range []string{tree + "/rootfs/local/v/w", tree + "/rootfs", emptyDir + "/sub", shared + "app-0123456789abcdef-copied/v", g.dir + "/sandbox/shm/x", g.dir + "/sandbox/shm/x/y", g.dir + "/sandbox/resolv.conf/x"} {
		r := withVolume(request("more", "true"), at(path))
		if err := errOf(g.CreateContainer(within(t), r)); status.Code(err) != codes.FailedPrecondition && status.Code(err) != codes.PermissionDenied {
			t.Errorf("volume at %s: %v", path, err)
		}
	}
	for _, id := range []string{"own", "mem"} {
		g.remove(t, id)
	}
}

// TestRootNoSecondSandbox: after its end a guest has no other pod.
func TestRootNoSecondSandbox(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	if _, err := g.DestroySandbox(within(t), &kata.DestroySandboxRequest{}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "another sandbox", errOf(g.CreateSandbox(within(t), &kata.CreateSandboxRequest{SandboxId: "other"})), codes.FailedPrecondition, "one guest has one")
	wantCode(t, "a container", errOf(g.CreateContainer(within(t), request("app", "true"))), codes.FailedPrecondition, "no sandbox")
}
