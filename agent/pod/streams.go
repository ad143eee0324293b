// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// streams are one process' standard streams between the container and the host.
type streams struct {
	stdin, stdout, stderr *stream
	terminal              bool // stdin and stdout are the terminal; stderr is empty
}

func newStreams(terminal bool) *streams {
	s := &streams{stdin: newStream(), stdout: newStream(), stderr: newStream(), terminal: terminal}
	if terminal {
		_ = s.stderr.Close()
	}
	return s
}

// noLogs stands in the output of a container whose output the host may not have.
const noLogs = "casemate: this guest gives no logs: agent.strict is set in its measured configuration\r\n"

// streams are those of a new process.
func (s *Service) streams(terminal bool) *streams {
	st := newStreams(terminal)
	if s.cfg.NoLogs != nil && s.cfg.NoLogs() {
		st.stdout.replace(noLogs)
		st.stderr.replace("")
	}
	return st
}

// stdio are the container's ends.
func (s *streams) stdio() container.Stdio {
	io := container.Stdio{Stdin: input{s.stdin}, Stdout: s.stdout, Stderr: s.stderr}
	if s.terminal {
		io.Stderr = nil
	}
	return io
}

// abandon frees a container that waits for a host which reads no more.
func (s *streams) abandon() {
	s.stdout.abandon()
	s.stderr.abandon()
	_ = s.stdin.Close()
}

func (st *streams) out() *stream { return st.stdout }

// err of a terminal is the terminal, as the runtimes expect.
func (st *streams) err() *stream {
	if st.terminal {
		return st.stdout
	}
	return st.stderr
}

// reading serves the reads of one output. A host that the policy refuses them reads nothing, and a container whose
// output nobody takes would stand still.
func (s *Service) reading(which func(*streams) *stream) ttrpc.Method {
	serve := handler(s, func(ctx context.Context, req *kata.ReadStreamRequest) (*output, error) {
		return s.readOutput(ctx, req, which)
	})
	return func(ctx context.Context, decode func(any) error) (any, error) {
		return serve(ctx, func(v any) error {
			err := decode(v)
			if req, ok := v.(*kata.ReadStreamRequest); ok && status.Code(err) == codes.PermissionDenied {
				if p, unknown := s.process(req.GetContainerId(), req.GetExecId()); unknown == nil {
					which(p.streams).refuse()
				}
			}
			return err
		})
	}
}

func (s *Service) readOutput(ctx context.Context, req *kata.ReadStreamRequest, which func(*streams) *stream) (*output, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	if req.GetLen() == 0 {
		return nil, fail(codes.InvalidArgument, "a read of no bytes would look like the end of the stream")
	}
	var out *output
	n, err := which(p.streams).read(ctx, int(min(req.GetLen(), outputMax)), func(n int) []byte {
		out = s.outputs.room(n)
		return out.data()
	})
	if err != nil {
		return nil, err
	}
	if n == 0 {
		out = s.outputs.room(0) // the end
	}
	out.seal()
	return out, nil
}

// writeStdin takes all bytes, waiting for the process; none close the input.
func (s *Service) writeStdin(ctx context.Context, req *kata.WriteStreamRequest) (*kata.WriteStreamResponse, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	if len(req.GetData()) == 0 {
		_ = p.streams.stdin.Close()
		return &kata.WriteStreamResponse{}, nil
	}
	n, err := p.streams.stdin.write(ctx, req.GetData())
	if errors.Is(err, io.ErrClosedPipe) {
		return nil, fail(codes.FailedPrecondition, "the process' standard input is closed")
	}
	if err != nil {
		return nil, err
	}
	return &kata.WriteStreamResponse{Len: uint32(n)}, nil //nolint:gosec // at most one message
}

func (s *Service) closeStdin(_ context.Context, req *kata.CloseStdinRequest) (*emptypb.Empty, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	_ = p.streams.stdin.Close()
	return &emptypb.Empty{}, nil
}

func (s *Service) resizeTerminal(_ context.Context, req *kata.TtyWinResizeRequest) (*emptypb.Empty, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	if !p.streams.terminal {
		return nil, fail(codes.Unavailable, "no tty")
	}
	if req.GetRow() > 1<<16-1 || req.GetColumn() > 1<<16-1 {
		return nil, fail(codes.InvalidArgument, "terminal of %d rows and %d columns", req.GetRow(), req.GetColumn())
	}
	if err := p.Resize(uint16(req.GetColumn()), uint16(req.GetRow())); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}
