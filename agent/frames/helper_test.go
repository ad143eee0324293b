// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are in memory: a write waits for its reader.
type pipes struct {
	next chan net.Conn
	over chan struct{}
	once sync.Once
}

func newPipes() *pipes { return &pipes{next: make(chan net.Conn), over: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.next:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func (p *pipes) dial(t testing.TB) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	p.next <- theirs
	t.Cleanup(func() { _ = ours.Close() })
	return ours
}

// canary is what no peer may read.
const canary = "the-canary"

// methods of the tests: each attacks an answer, or makes an ordinary one.
func methods() map[string]ttrpc.Method {
	constant := func(v any, err error) ttrpc.Method {
		return func(context.Context, func(any) error) (any, error) { return v, err }
	}
	return map[string]ttrpc.Method{
		"Echo": Unary(func(_ context.Context, in *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) { return in, nil }),
		"Wait": func(ctx context.Context, _ func(any) error) (any, error) {
			<-ctx.Done()
			return nil, status.FromContextError(ctx.Err()).Err()
		},
		"Refuse":  constant(nil, status.Error(codes.PermissionDenied, "no")),
		"Fail":    constant(nil, errors.New(canary)),
		"Nothing": constant(nil, nil),
		"Nil":     constant((*emptypb.Empty)(nil), nil),
		"Text":    constant(canary, nil),
		"Huge":    constant(&wrapperspb.BytesValue{Value: make([]byte, messageSizeMax)}, nil),
		"Long":    constant(nil, status.Error(codes.NotFound, string(make([]byte, messageSizeMax)))),
		"Cramped": constant(&encoded{b: make([]byte, Room), head: Room - 1}, nil),
		"Ready":   constant(&encoded{b: append(make([]byte, Room+7), must(proto.Marshal(wrapperspb.Bytes([]byte("ready"))))...), head: Room + 7}, nil),
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

type encoded struct {
	b    []byte
	head int
}

func (e *encoded) Encoded() ([]byte, int) { return e.b, e.head }
func (e *encoded) Release()               {}

// start serves until the test ends.
func start(t testing.TB, change ...func(*Config)) (*Server, *pipes) {
	t.Helper()
	c := Config{
		Methods: map[string]map[string]ttrpc.Method{"test.Service": methods()},
		Intercept: func(ctx context.Context, decode ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
			return method(ctx, decode)
		},
		Connections: 8,
	}
	for _, f := range change {
		f(&c)
	}
	s, l := NewServer(c), newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		s.Stop(ctx, 0)
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return s, l
}

func head(size, id uint32, kind byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	return append(binary.BigEndian.AppendUint32(b, id), kind, 0)
}

func framedBytes(id uint32, body []byte) []byte {
	return append(head(uint32(len(body)), id, frameRequest), body...)
}

// request is the frame of a call of the test service.
func request(id uint32, method string, payload []byte) []byte {
	return framedBytes(id, must(proto.Marshal(&ttrpc.Request{Service: "test.Service", Method: method, Payload: payload})))
}

func echo(id uint32, text string) []byte {
	return request(id, "Echo", must(proto.Marshal(wrapperspb.Bytes([]byte(text)))))
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// reply is an answer as the peer reads it.
type reply struct {
	id   uint32
	code codes.Code
	text string // of the payload, or of the status
}

func readReply(c io.Reader) (reply, error) {
	var h [frameHeaderSize]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return reply{}, err
	}
	body := make([]byte, binary.BigEndian.Uint32(h[0:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return reply{}, err
	}
	var resp ttrpc.Response
	var value wrapperspb.BytesValue
	if err := errors.Join(proto.Unmarshal(body, &resp), proto.Unmarshal(resp.Payload, &value)); err != nil {
		return reply{}, err
	}
	if h[8] != frameResponse || h[9] != 0 {
		return reply{}, errors.New("not a response frame")
	}
	r := reply{id: binary.BigEndian.Uint32(h[4:]), code: codes.Code(resp.Status.GetCode()), text: string(value.Value)}
	if r.code != codes.OK {
		r.text = resp.Status.GetMessage()
	}
	return r, nil
}

// exchange sends bytes, and what comes back until the server closes or has given n replies.
func exchange(t testing.TB, c net.Conn, sent []byte, n int) (replies map[uint32]reply, ended bool) {
	t.Helper()
	go func() { _, _ = c.Write(sent) }() // the server may hang up
	replies = map[uint32]reply{}
	for range n {
		r, err := readReply(c)
		if err != nil {
			return replies, true
		}
		replies[r.id] = r
	}
	return replies, false
}
