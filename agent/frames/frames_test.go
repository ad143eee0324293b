// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What no client of unary methods sends ends its connection, after the answers to what came before, and only that one.
func TestFramesThatEndTheConnection(t *testing.T) {
	good := echo(1, "a")
	for name, tt := range map[string]struct {
		sent   []byte
		before int // answers that come before the end
	}{
		"stream id zero":                {echo(0, "a"), 0},
		"even stream id":                {echo(2, "a"), 0},
		"largest even stream id":        {echo(1<<32-2, "a"), 0},
		"stream id of a running call":   {join(request(1, "Wait", nil), good), 0},
		"data frame":                    {head(4, 1, 3), 0},
		"data frame for a running call": {join(request(1, "Wait", nil), head(0, 1, 3)), 0},
		"empty response frame":          {head(0, 1, frameResponse), 0},
		"unknown type":                  {head(0, 1, 0xff), 0},
		"type zero":                     {head(0, 1, 0), 0},
		"4 GiB of data":                 {head(1<<32-1, 1, 3), 0},
		"not ttrpc":                     {[]byte("GET / HTTP/1.1\r\nHost: guest\r\n\r\n"), 0},
		"zeros":                         {make([]byte, 100), 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := start(t)
			replies, ended := exchange(t, l.dial(t), tt.sent, tt.before+1)
			if !ended || len(replies) > tt.before {
				t.Errorf("ended %v after %d answers, want %d", ended, len(replies), tt.before)
			}
			until(within(t), func() bool { n, _ := s.Pending(); return n == 0 })
			if got, _ := exchange(t, l.dial(t), good, 1); got[1] != (reply{1, codes.OK, "a"}) {
				t.Errorf("the next connection: %v", got)
			}
		})
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// What is wrong with one request is its answer, and the connection goes on.
func TestRequestsThatAreAnswered(t *testing.T) {
	service := func(service, method string) []byte {
		return framedBytes(1, must(proto.Marshal(&ttrpc.Request{Service: service, Method: method})))
	}
	for name, tt := range map[string]struct {
		sent []byte
		want reply
	}{
		"echo":               {echo(1, "a"), reply{1, codes.OK, "a"}},
		"no payload":         {request(1, "Echo", nil), reply{1, codes.OK, ""}},
		"empty message":      {head(0, 1, frameRequest), reply{1, codes.Unimplemented, "no such service"}},
		"no such service":    {service("test", "Echo"), reply{1, codes.Unimplemented, "no such service"}},
		"no such method":     {service("test.Service", "Other"), reply{1, codes.Unimplemented, "no such method"}},
		"path for a name":    {service("test.Service/Echo", ""), reply{1, codes.Unimplemented, "no such service"}},
		"malformed envelope": {framedBytes(1, []byte{0xff, 0xff, 0xff}), reply{1, codes.InvalidArgument, "the request is malformed"}},
		"malformed payload":  {request(1, "Echo", []byte{0xff}), reply{1, codes.InvalidArgument, "the request is malformed"}},
		"text that is none":  {framedBytes(1, []byte{0x0a, 1, 0xff}), reply{1, codes.InvalidArgument, "the request is malformed"}},
		"largest message": {
			echo(1, strings.Repeat("x", messageSizeMax-100)), reply{1, codes.OK, strings.Repeat("x", messageSizeMax-100)},
		},
		"a byte too many": {
			framedBytes(1, make([]byte, messageSizeMax+1)), reply{1, codes.ResourceExhausted, "message of 4194305 bytes, want at most 4194304"},
		},
		"largest stream id":                  {echo(1<<32-3, "a"), reply{1<<32 - 3, codes.OK, "a"}},
		"refusal":                            {request(1, "Refuse", nil), reply{1, codes.PermissionDenied, "no"}},
		"error that is not for the peer":     {request(1, "Fail", nil), reply{1, codes.Internal, "internal error"}},
		"no answer":                          {request(1, "Nothing", nil), reply{1, codes.Internal, "internal error"}},
		"nil answer":                         {request(1, "Nil", nil), reply{1, codes.Internal, "internal error"}},
		"answer that is no message":          {request(1, "Text", nil), reply{1, codes.Internal, "internal error"}},
		"answer larger than a frame":         {request(1, "Huge", nil), reply{1, codes.ResourceExhausted, "the answer is larger than a message"}},
		"status larger than a frame":         {request(1, "Long", nil), reply{1, codes.NotFound, ""}},
		"encoded answer":                     {request(1, "Ready", nil), reply{1, codes.OK, "ready"}},
		"encoded answer without enough room": {request(1, "Cramped", nil), reply{1, codes.Internal, "internal error"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, l := start(t)
			c := l.dial(t)
			got, _ := exchange(t, c, tt.sent, 1)
			if got[tt.want.id] != tt.want {
				t.Errorf("got %.200v, want %.200v", got, tt.want)
			}
			if got, _ := exchange(t, c, echo(1<<32-1, "later"), 1); got[1<<32-1].text != "later" {
				t.Errorf("the next request: %v", got)
			}
		})
	}
}

// The tasks of a client in Rust overtake each other with their ids, which come round at the end; only those of running
// calls are taken.
func TestStreamIDsInAnyOrder(t *testing.T) {
	_, l := start(t)
	c := l.dial(t)
	sent := join(echo(9, "a"), request(7, "Wait", nil), echo(1<<32-1, "b"), echo(5, "c"), echo(1, "d"))
	want := map[uint32]reply{9: {9, codes.OK, "a"}, 1<<32 - 1: {1<<32 - 1, codes.OK, "b"}, 5: {5, codes.OK, "c"}, 1: {1, codes.OK, "d"}}
	for range 3 {
		if got, ended := exchange(t, c, sent, len(want)); ended || !maps.Equal(got, want) {
			t.Fatalf("got %v, ended %v", got, ended)
		}
		sent = join(echo(5, "c"), echo(9, "a"), echo(1<<32-1, "b"), echo(1, "d"))
	}
	if got, ended := exchange(t, c, echo(7, "again"), 1); !ended {
		t.Errorf("the id of a running call was answered: %v", got)
	}
}

// Requests arrive in whatever pieces, and answers in whatever order.
func TestFramesInPieces(t *testing.T) {
	_, l := start(t)
	sent := join(request(1, "Wait", nil), echo(3, "three"), echo(5, strings.Repeat("5", 5000)), request(7, "Refuse", nil))
	want := map[uint32]reply{3: {3, codes.OK, "three"}, 5: {5, codes.OK, strings.Repeat("5", 5000)}, 7: {7, codes.PermissionDenied, "no"}}
	for _, size := range []int{1, 2, 9, 10, 11, 4095, 4096, 4097, len(sent)} {
		c := l.dial(t)
		r, w := io.Pipe()
		go func() {
			for left := sent; len(left) > 0; left = left[min(size, len(left)):] {
				_, _ = w.Write(left[:min(size, len(left))])
			}
		}()
		go func() { // each piece by itself
			b := make([]byte, size)
			for {
				n, err := r.Read(b)
				if err != nil {
					return
				}
				_, _ = c.Write(b[:n])
			}
		}()
		got, ended := exchange(t, c, nil, len(want))
		if ended || !maps.Equal(got, want) {
			t.Errorf("pieces of %d bytes: ended %v, %d answers", size, ended, len(got))
		}
		_ = w.Close()
		_ = c.Close()
	}
}

// A frame that ends with its connection reaches no handler, and gives back what it held.
func TestHalfAFrame(t *testing.T) {
	var mu sync.Mutex
	handled := 0
	s, l := start(t, func(c *Config) {
		c.Connections = 100
		c.Intercept = func(context.Context, ttrpc.Unmarshaler, *ttrpc.UnaryServerInfo, ttrpc.Method) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			handled++
			return &emptypb.Empty{}, nil
		}
	})
	whole := echo(1, strings.Repeat("x", 5000))
	for n := 0; n < len(whole); n += 1 + n/4 {
		c := l.dial(t)
		if _, err := c.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	until(within(t), func() bool { return s.each(func(*conn) {}) == 0 })
	mu.Lock()
	defer mu.Unlock()
	if n, size := s.Pending(); n != 0 || size != 0 || handled != 0 {
		t.Errorf("%d requests of %d bytes are held, %d were handled", n, size, handled)
	}
}

// A peer has its time for a first request and for each frame; one that has spoken may be silent for ever.
func TestPeersThatAreSlow(t *testing.T) {
	for name, tt := range map[string]struct {
		sent []byte
		ends time.Duration // 0: never
	}{
		"says nothing":                {nil, firstRequestTimeout},
		"begins a header":             {echo(1, "a")[:1], frameTimeout},
		"ends in a header":            {echo(1, "a")[:9], frameTimeout},
		"says a header and no more":   {echo(1, "a")[:10], frameTimeout},
		"ends in a message":           {echo(1, strings.Repeat("x", 9000))[:8000], frameTimeout},
		"ends in an oversized one":    {join(head(1<<32-1, 1, frameRequest), make([]byte, 9000)), frameTimeout},
		"begins a second frame":       {join(echo(1, "a"), head(9, 3, frameRequest)[:3]), frameTimeout},
		"waits for a call":            {request(1, "Wait", nil), 0},
		"is silent after its request": {echo(1, "a"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, l := start(t)
				c := l.dial(t)
				began, over := time.Now(), make(chan time.Duration, 1)
				go func() {
					_, _ = io.Copy(io.Discard, c)
					over <- time.Since(began)
				}()
				if _, err := c.Write(tt.sent); err != nil {
					t.Fatal(err)
				}
				select {
				case after := <-over:
					if after != tt.ends {
						t.Errorf("ended after %v, want %v", after, tt.ends)
					}
				case <-time.After(24 * time.Hour):
					if tt.ends != 0 {
						t.Error("the connection stands a day later")
					}
				}
			})
		})
	}
}

// A peer that takes no answers loses its connection, and its handlers end.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := start(t)
		c := l.dial(t)
		if _, err := c.Write(join(request(1, "Wait", nil), echo(3, "a"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writeTimeout - time.Second)
		if n, _ := s.Pending(); n != 2 {
			t.Errorf("%d requests are without their answer, want 2", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := s.each(func(*conn) {}); n != 0 {
			t.Errorf("%d connections stand", n)
		}
		if _, err := c.Write(echo(7, "c")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing: %v", err)
		}
	})
}

// Unanswered requests are bounded in number and in bytes: beyond that nothing is read.
func TestUnansweredRequestsAreBounded(t *testing.T) {
	for name, tt := range map[string]struct{ size, most int }{
		"small": {0, pendingMax},
		"large": {messageSizeMax - 100, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := start(t)
				c := l.dial(t)
				body := must(proto.Marshal(&ttrpc.Request{Service: "test.Service", Method: "Wait", Payload: make([]byte, tt.size)}))
				go func() {
					for id := uint32(1); ; id += 2 {
						if _, err := c.Write(framedBytes(id, body)); err != nil {
							return
						}
					}
				}()
				synctest.Wait()
				n, size := s.Pending()
				if n != tt.most || size > MaxPending {
					t.Errorf("%d requests of %d bytes are held, want %d", n, size, tt.most)
				}
				s.each((*conn).shut)
				synctest.Wait()
				if n, size := s.Pending(); n != 0 || size != 0 {
					t.Errorf("%d requests of %d bytes are held by a connection that has ended", n, size)
				}
			})
		})
	}
}

func TestDeadlineOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := start(t)
		for id, nano := range map[uint32]int64{1: int64(time.Hour), 3: 1, 5: -1, 7: -1 << 63} {
			body := must(proto.Marshal(&ttrpc.Request{Service: "test.Service", Method: "Wait", TimeoutNano: nano}))
			began := time.Now()
			got, _ := exchange(t, l.dial(t), framedBytes(id, body), 1)
			if took := time.Since(began); got[id].code != codes.DeadlineExceeded || took != time.Duration(max(nano, 0)) {
				t.Errorf("%d ns: got %v after %v", nano, got, took)
			}
		}
	})
}

// Strangers and one too many are turned away at once; a place that is left is given again.
func TestConnectionsAreLimited(t *testing.T) {
	var stranger bool
	s, l := start(t, func(c *Config) {
		c.Connections, c.Admit = 2, func(net.Conn) bool { return !stranger }
	})
	first, second := l.dial(t), l.dial(t)
	for _, c := range []net.Conn{first, second} {
		if got, _ := exchange(t, c, echo(1, "a"), 1); got[1].text != "a" {
			t.Errorf("got %v", got)
		}
	}
	if _, ended := exchange(t, l.dial(t), echo(1, "a"), 1); !ended {
		t.Error("a third connection was served")
	}
	_ = first.Close()
	until(within(t), func() bool { return s.each(func(*conn) {}) == 1 })
	if got, _ := exchange(t, l.dial(t), echo(1, "a"), 1); got[1].text != "a" {
		t.Errorf("in the place of the first: %v", got)
	}
	_ = second.Close()
	until(within(t), func() bool { return s.each(func(*conn) {}) == 1 })
	stranger = true
	if _, ended := exchange(t, l.dial(t), echo(1, "a"), 1); !ended {
		t.Error("a stranger was served")
	}
}

// The library's client finds what it expects, many calls at a time.
func TestLibraryClient(t *testing.T) {
	s, _ := start(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(context.Background(), l) }()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(c)
	defer func() { _ = client.Close(); _ = client.UserOnCloseWait(context.Background()) }()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			in, out := wrapperspb.Bytes(bytes.Repeat([]byte{byte(i)}, i*100)), new(wrapperspb.BytesValue)
			if err := client.Call(t.Context(), "test.Service", "Echo", in, out); err != nil || !proto.Equal(in, out) {
				t.Errorf("call %d: %d bytes, %v", i, len(out.Value), err)
			}
			err := client.Call(t.Context(), "test.Service", "Refuse", in, out)
			if st := status.Convert(err); st.Code() != codes.PermissionDenied || st.Message() != "no" {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Stop waits for answers, then for peers, and for neither longer than it is told.
func TestStop(t *testing.T) {
	for name, tt := range map[string]struct {
		method        string
		closes        bool
		grace, linger time.Duration
		want          time.Duration
	}{
		"idle":                   {"Echo", false, time.Hour, 0, 0},
		"call that does not end": {"Wait", false, 3 * time.Second, 0, 3 * time.Second},
		"peer that stays":        {"Echo", false, time.Hour, time.Minute, time.Minute},
		"peer that goes":         {"Echo", true, time.Hour, time.Minute, time.Second},
		"peer beyond the time":   {"Echo", false, time.Second, time.Minute, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := NewServer(Config{
					Methods: map[string]map[string]ttrpc.Method{"test.Service": methods()}, Connections: 1,
					Intercept: func(ctx context.Context, decode ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
						return method(ctx, decode)
					},
				}), newPipes()
				served := make(chan error, 1)
				go func() { served <- s.Serve(context.Background(), l) }()
				c := l.dial(t)
				go func() { _, _ = io.Copy(io.Discard, c) }()
				if _, err := c.Write(request(1, tt.method, nil)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if tt.closes {
					time.AfterFunc(time.Second, func() { _ = c.Close() })
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.grace)
				defer cancel()
				began := time.Now()
				s.Stop(ctx, tt.linger)
				if took := time.Since(began); took < tt.want || took > tt.want+2*stopPoll {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				if err := <-served; err != nil {
					t.Errorf("serving: %v", err)
				}
				if err := s.Serve(t.Context(), newPipes()); err != nil {
					t.Errorf("serving once more: %v", err)
				}
			})
		})
	}
}

// A listener's passing failure is waited out; another ends Serve.
func TestServeOverABrokenListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{})
		l := &brokenListener{pipes: newPipes(), left: 5}
		began := time.Now()
		if err := s.Serve(t.Context(), l); err == nil || err.Error() != "broken" {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != 5*acceptWait {
			t.Errorf("waited for %v", took)
		}
		s.Stop(t.Context(), 0)
	})
}

type brokenListener struct {
	*pipes
	left int
}

type passing struct{ error }

func (passing) Temporary() bool { return true }

func (b *brokenListener) Accept() (net.Conn, error) {
	if b.left--; b.left >= 0 {
		return nil, fmt.Errorf("accepting: %w", passing{errors.New("too many open files")})
	}
	return nil, errors.New("broken")
}
