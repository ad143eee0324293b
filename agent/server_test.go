// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/frames"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer serves on a unix socket until the test ends and checks that it stops in order.
func startServer(t testing.TB, door *Door, extra ...func(*Server)) string {
	t.Helper()
	s, err := NewServer(Config{Version: "1.2.3", Door: door, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range extra {
		f(s)
	}
	path := filepath.Join(t.TempDir(), "agent.sock")
	a, err := ParseAddress("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(2 * stopTimeout):
			t.Error("the server did not stop")
		}
	})
	return path
}

func dial(t testing.TB, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func client(t testing.TB, path string) *ttrpc.Client {
	t.Helper()
	c := ttrpc.NewClient(dial(t, path))
	t.Cleanup(func() { _ = c.Close(); c.UserOnCloseWait(context.Background()) })
	return c
}

func check(t testing.TB, c *ttrpc.Client) {
	t.Helper()
	r, err := kata.NewTTRPCHealthClient(c).Check(t.Context(), &kata.CheckRequest{})
	if err != nil || r.Status != kata.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
}

func TestHealth(t *testing.T) {
	door := new(Door)
	c := client(t, startServer(t, door))
	check(t, c)
	v, err := kata.NewTTRPCHealthClient(c).Version(t.Context(), &kata.CheckRequest{Service: "grpc.AgentService"})
	if err != nil || v.AgentVersion != "1.2.3" || v.GrpcVersion != "0.0.1" {
		t.Errorf("version: %v, %v", v, err)
	}
	door.Park(Reason{"boot", "parked"})
	check(t, c)
}

// TestEveryRefusalOnTheWire calls all methods of the sandbox service through a closed and a parked door.
func TestEveryRefusalOnTheWire(t *testing.T) {
	door := new(Door)
	c := client(t, startServer(t, door))
	call := func(name, request, reason string) {
		t.Helper()
		err := c.Call(t.Context(), agentService, name, &emptypb.Empty{}, &emptypb.Empty{})
		want := request + " is blocked by policy: " + reason
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != want {
			t.Errorf("%s: %v %q, want %q", name, s.Code(), s.Message(), want)
		}
	}
	all := services()[0].Methods()
	for i := range all.Len() {
		call(string(all.Get(i).Name()), string(all.Get(i).Input().Name()), closedReason().String())
	}
	door.Park(Reason{"boot-modules", "the guest could not load its modules"})
	call("CreateSandbox", "CreateSandboxRequest", "boot-modules: the guest could not load its modules")
	check(t, c)
}

func TestOpenDoorStillRefusesTheTable(t *testing.T) {
	door := new(Door)
	door.Open(policyFunc(allowAll))
	c := client(t, startServer(t, door))
	for name, reason := range refused() {
		short := strings.TrimPrefix(name, agentService+"/")
		err := c.Call(t.Context(), agentService, short, &emptypb.Empty{}, &emptypb.Empty{})
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.HasSuffix(s.Message(), reason.String()) {
			t.Errorf("%s: %v %q", short, s.Code(), s.Message())
		}
	}
}

func TestUnknownServiceAndMethod(t *testing.T) {
	c := client(t, startServer(t, new(Door)))
	for _, name := range [][2]string{{"grpc.Debug", "Shell"}, {"grpc.AgentService", "Debug"}, {"grpc.Health", "Watch"}, {"", ""}} {
		err := c.Call(t.Context(), name[0], name[1], &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%v: %v", name, err)
		}
	}
	check(t, c)
}

func TestThousandParallelChecks(t *testing.T) {
	path := startServer(t, new(Door))
	clients := []*ttrpc.Client{client(t, path), client(t, path), client(t, path)}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() { check(t, clients[i%len(clients)]) })
	}
	wg.Wait()
}

// waiting has a method that waits for its context and reports how it ended.
func waiting(ended chan error) ttrpc.Method {
	return func(ctx context.Context, _ func(any) error) (any, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
}

// unguarded makes a server with a method that the API does not have, and lets the gate pass it.
func unguarded(wait ttrpc.Method) func(*Server) {
	return func(s *Server) {
		g := &gate{methods: methods(), door: new(Door), log: slog.New(slog.DiscardHandler)}
		g.methods["test.Wait/Wait"] = method{request: "Wait", served: true, access: always}
		*s = *newServer(g, map[string]map[string]ttrpc.Method{
			healthService: health{version: "1.2.3"}.methods(),
			"test.Wait":   {"Wait": wait},
		})
	}
}

// TestTheRequestThatEndsTheServerIsAnswered: DestroySandbox switches the machine off, and
// kata's runtime takes a connection that closes in place of an answer for a failure.
func TestTheRequestThatEndsTheServerIsAnswered(t *testing.T) {
	s, err := NewServer(Config{Version: "1", Door: new(Door), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	unguarded(func(context.Context, func(any) error) (any, error) {
		end()
		time.Sleep(20 * time.Millisecond)
		return &emptypb.Empty{}, nil
	})(s)
	address, err := ParseAddress("unix://" + filepath.Join(t.TempDir(), "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := address.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	if err := client(t, l.Addr().String()).Call(t.Context(), "test.Wait", "Wait", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Errorf("the call ended with %v", err)
	}
	end()
	if err := <-served; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

// TestTheServerClosesLast: a peer reads the end of the stream before the server lets go of the connection, and one that
// does not close is not waited for long.
func TestTheServerClosesLast(t *testing.T) {
	for _, closes := range []bool{true, false} {
		s, err := NewServer(Config{Version: "1", Door: new(Door), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		address, err := ParseAddress("unix://" + filepath.Join(t.TempDir(), "agent.sock"))
		if err != nil {
			t.Fatal(err)
		}
		l, err := address.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		c := dial(t, l.Addr().String())
		mustWrite(t, c, frame(t, 1, frameRequest, "grpc.Health", "Check"))
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		end()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("the stream ended with %v", err)
		}
		select {
		case <-served:
			t.Error("the server did not wait for its peer")
		case <-time.After(20 * time.Millisecond):
		}
		if closes {
			_ = c.Close()
		}
		started := time.Now()
		if err := <-served; err != nil {
			t.Errorf("serving ended with %v", err)
		}
		if took := time.Since(started); closes && took > lingerTime/2 || took > 2*lingerTime {
			t.Errorf("closes %v: the server waited for %v", closes, took)
		}
	}
}

func TestClientDeadlineEndsTheHandler(t *testing.T) {
	ended := make(chan error, 1)
	c := client(t, startServer(t, new(Door), unguarded(waiting(ended))))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "test.Wait", "Wait", &emptypb.Empty{}, &emptypb.Empty{}); err == nil {
		t.Error("the call came back")
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handler ended with %v", err)
	}
}

func TestVanishedClientEndsTheHandler(t *testing.T) {
	ended := make(chan error, 1)
	c := dial(t, startServer(t, new(Door), unguarded(waiting(ended))))
	mustWrite(t, c, frame(t, 1, frameRequest, "test.Wait", "Wait"))
	time.Sleep(20 * time.Millisecond)
	_ = c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler ended with %v", err)
	}
}

func TestHealthBesideWaitingRequests(t *testing.T) {
	ended := make(chan error, 200)
	c := client(t, startServer(t, new(Door), unguarded(waiting(ended))))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { _ = c.Call(ctx, "test.Wait", "Wait", &emptypb.Empty{}, &emptypb.Empty{}) })
	}
	check(t, c)
	cancel()
	wg.Wait()
}

func TestStopCancelsARunningRequest(t *testing.T) {
	ended := make(chan error, 1)
	t.Run("server", func(t *testing.T) {
		c := dial(t, startServer(t, new(Door), unguarded(waiting(ended))))
		mustWrite(t, c, frame(t, 1, frameRequest, "test.Wait", "Wait"))
		time.Sleep(20 * time.Millisecond)
	}) // the cleanup stops the server within its time
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler ended with %v", err)
	}
}

// Frames of ttrpc, containerd/ttrpc PROTOCOL.md.
const (
	frameHeaderSize = 10
	frameRequest    = 1
	messageSizeMax  = 4 << 20
)

func frame(t testing.TB, id uint32, kind byte, service, name string) []byte {
	t.Helper()
	body, err := proto.Marshal(&ttrpc.Request{Service: service, Method: name})
	if err != nil {
		t.Fatal(err)
	}
	return append(header(uint32(len(body)), id, kind), body...)
}

func header(size, id uint32, kind byte) []byte {
	var b []byte
	b = binary.BigEndian.AppendUint32(b, size)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, kind, 0)
}

func mustWrite(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// TestHostileFrames sends what no client sends. Each must end its own connection, and only that.
func TestHostileFrames(t *testing.T) {
	path := startServer(t, new(Door))
	good := frame(t, 1, frameRequest, healthService, "Check")
	tests := []struct {
		name  string
		bytes []byte
	}{
		{"data frame on a unary call ends the library's process", append(append([]byte{}, good...), header(0, 1, 3)...)},
		{"data frame out of nowhere", header(4, 1, 3)},
		{"response frame", header(4, 1, 2)},
		{"unknown frame type", header(4, 1, 0xff)},
		{"even stream id", frame(t, 2, frameRequest, healthService, "Check")},
		{"garbage", []byte("GET / HTTP/1.1\r\nHost: guest\r\n\r\n")},
		{"4 GiB message of another type", header(0xffffffff, 1, 3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, path)
			mustWrite(t, c, tt.bytes)
			if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection was not ended: %v", err)
			}
			check(t, client(t, path))
		})
	}
}

func TestMalformedRequestEnvelope(t *testing.T) {
	path := startServer(t, new(Door))
	c := dial(t, path)
	mustWrite(t, c, append(header(3, 1, frameRequest), 0xff, 0xff, 0xff))
	answer := make([]byte, frameHeaderSize)
	if _, err := io.ReadFull(c, answer); err != nil || answer[8] != 2 {
		t.Errorf("got %x, %v; want a response frame", answer, err)
	}
	check(t, client(t, path))
}

// TestOversizedMessage sends 10 MB as one request: it is refused and the connection goes on.
func TestOversizedMessage(t *testing.T) {
	c := dial(t, startServer(t, new(Door)))
	mustWrite(t, c, header(10_000_000, 1, frameRequest))
	mustWrite(t, c, make([]byte, 10_000_000))
	mustWrite(t, c, frame(t, 3, frameRequest, healthService, "Check"))
	for _, want := range []struct {
		id   uint32
		code codes.Code
	}{{1, codes.ResourceExhausted}, {3, codes.OK}} {
		var h [frameHeaderSize]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(h[0:]))
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		var resp ttrpc.Response
		if err := proto.Unmarshal(body, &resp); err != nil {
			t.Fatal(err)
		}
		if id, code := binary.BigEndian.Uint32(h[4:]), codes.Code(resp.Status.GetCode()); id != want.id || code != want.code {
			t.Errorf("stream %d: %v, want stream %d: %v", id, code, want.id, want.code)
		}
	}
}

// TestHalfOpenConnections leaves connections hanging at every stage; health answers beside them, and strangers
// beyond the limit are turned away instead of queued.
func TestHalfOpenConnections(t *testing.T) {
	path := startServer(t, new(Door))
	live := client(t, path)
	check(t, live)
	whole := frame(t, 1, frameRequest, healthService, "Check")
	for i := range 2 * connectionsMax {
		c := dial(t, path)
		_, _ = c.Write(whole[:i%len(whole)]) // one beyond the limit may be closed already
	}
	check(t, live)
}

// TestUnreadAnswers keeps sending without ever reading: what the server holds for the peer stays bounded.
func TestUnreadAnswers(t *testing.T) {
	var server *Server
	path := startServer(t, new(Door), func(s *Server) { server = s })
	c := dial(t, path)
	body, err := proto.Marshal(&ttrpc.Request{Service: agentService, Method: "CopyFile", Payload: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	// The small answers fill the socket; then the handlers wait, and at last the server stops reading.
	sent := 0
	for id := uint32(1); ; id += 2 {
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err = c.Write(header(uint32(len(body)), id, frameRequest)); err != nil {
			break
		}
		if _, err = c.Write(body); err != nil {
			break
		}
		if sent++; sent == 4096 {
			t.Skip("the socket takes 4096 answers unread: nothing to see")
		}
	}
	if n, ok := err.(net.Error); !ok || !n.Timeout() {
		t.Fatalf("sending: %v", err)
	}
	started := time.Now()
	check(t, client(t, path)) // health does not wait for the stalled peer
	if d := time.Since(started); d > time.Second {
		t.Errorf("health took %v", d)
	}
	if _, size := server.frames.Pending(); size < frames.MaxPending-2<<20 {
		t.Errorf("requests of %d bytes are held: something else stopped the sender", size)
	}
}

func TestNewServerWantsEverything(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for i, c := range []Config{{}, {Version: "1", Log: log}, {Version: "1", Door: new(Door)}, {Door: new(Door), Log: log}} {
		if _, err := NewServer(c); err == nil {
			t.Errorf("config %d was accepted", i)
		}
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	s, err := NewServer(Config{Version: "1", Door: new(Door), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "accepting on") {
		t.Errorf("got %v", err)
	}
}

func ExampleReason() {
	fmt.Println(Reason{Code: "door-closed", Phrase: "no policy"})
	// Output: door-closed: no policy
}
