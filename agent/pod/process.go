// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// startContainer releases the first process.
func (s *Service) startContainer(ctx context.Context, req *kata.StartContainerRequest) (*emptypb.Empty, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := s.announce(ctx, e); err != nil {
		return nil, err
	}
	if err := e.container.Start(ctx); err != nil {
		if errors.Is(err, container.ErrNotRunning) {
			return nil, fail(codes.FailedPrecondition, "container %s has ended or was started before", e.id)
		}
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// announce comes before any program of a workload's container, the first or a further one: it begins to watch the
// container's memory and tells of its start, each once however often the host asks.
func (s *Service) announce(ctx context.Context, e *entry) error {
	if e.sandbox {
		return nil
	}
	e.closing.Lock()
	defer e.closing.Unlock()
	if !e.watched {
		e.watched = true
		if err := s.watchMemory(e); err != nil {
			s.cfg.Log.WarnContext(ctx, "out-of-memory events are not watched", "container", e.id, "error", err)
		}
	}
	if e.announced || s.cfg.Starting == nil {
		return nil
	}
	if err := s.cfg.Starting(Start{ID: e.id, Image: e.image, Digest: e.digest}); err != nil {
		return &Failure{Code: codes.FailedPrecondition, Phrase: "the container's start cannot be recorded", Err: err}
	}
	e.announced = true
	return nil
}

// signalProcess delivers a signal. That the process has gone meanwhile is what the
// sender of most signals wants.
func (s *Service) signalProcess(ctx context.Context, req *kata.SignalProcessRequest) (*emptypb.Empty, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	if req.GetSignal() == 0 || req.GetSignal() > 64 {
		return nil, fail(codes.InvalidArgument, "there is no signal %d", req.GetSignal())
	}
	sig := unix.Signal(req.GetSignal())
	first := req.GetExecId() == "" || req.GetExecId() == req.GetContainerId()
	all := req.GetExecId() == "" && sig == unix.SIGKILL
	if first && sig == unix.SIGTERM && !minds(ctx, p.Pid(), sig) {
		sig = unix.SIGKILL
	}
	if err := p.Signal(sig, all); err != nil && !errors.Is(err, container.ErrNotRunning) {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// execTime is how long a signal waits for a process that is about to become the
// user's program.
const execTime = time.Second

// initName begins the name of a container's first process until it is the user's
// program (runc, libcontainer/nsenter).
const initName = "runc:["

// minds reports whether a process handles, blocks or ignores a signal
// (proc_pid_status(5)). As the first process of a PID namespace one that does not
// would never get SIGTERM, and a pod would take its whole grace period to end. One
// that has not been started has no program to ask.
func minds(ctx context.Context, pid int, sig unix.Signal) bool {
	for deadline := time.Now().Add(execTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		name, mask, err := signalMask(pid)
		if err != nil {
			return true
		}
		if !strings.HasPrefix(name, initName) {
			return mask&(1<<(uint(sig)-1)) != 0
		}
	}
	return false
}

// signalMask reads a process' name and the signals that do not end it.
func signalMask(pid int) (name string, mask uint64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		field, value, _ := strings.Cut(sc.Text(), ":")
		switch field {
		case "Name":
			name = strings.TrimSpace(value)
		case "SigBlk", "SigIgn", "SigCgt":
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return "", 0, fmt.Errorf("reading signals of process %d: %w", pid, err)
			}
			mask |= bits
		}
	}
	return name, mask, nil
}

// waitProcess returns the exit status to every caller, also to those who ask again.
func (s *Service) waitProcess(ctx context.Context, req *kata.WaitProcessRequest) (*kata.WaitProcessResponse, error) {
	p, err := s.process(req.GetContainerId(), req.GetExecId())
	if err != nil {
		return nil, err
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	s.forget(req.GetContainerId(), req.GetExecId(), p)
	return &kata.WaitProcessResponse{Status: int32(exit.Code)}, nil //nolint:gosec // 0 to 255
}

// removeContainer takes a container away, running or not. With a timeout that was
// not enough the call can be repeated.
func (s *Service) removeContainer(ctx context.Context, req *kata.RemoveContainerRequest) (*emptypb.Empty, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if t := req.GetTimeout(); t > 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(t)*time.Second)
		defer cancel()
		ctx = limited
	}
	if err := s.remove(ctx, e); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.drop(e)
	s.mu.Unlock()
	return &emptypb.Empty{}, nil
}

func (s *Service) remove(ctx context.Context, e *entry) error {
	e.streams.abandon()
	s.mu.Lock()
	for _, p := range e.execs {
		p.streams.abandon()
	}
	s.mu.Unlock()
	if err := e.container.Delete(ctx); err != nil {
		return err
	}
	return e.close()
}

func (s *Service) pauseContainer(_ context.Context, req *kata.PauseContainerRequest) (*emptypb.Empty, error) {
	return s.freeze(req.GetContainerId(), (*container.Container).Pause)
}

func (s *Service) resumeContainer(_ context.Context, req *kata.ResumeContainerRequest) (*emptypb.Empty, error) {
	return s.freeze(req.GetContainerId(), (*container.Container).Resume)
}

func (s *Service) freeze(id string, f func(*container.Container) error) (*emptypb.Empty, error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if err := f(e.container); err != nil {
		if errors.Is(err, container.ErrNotRunning) {
			return nil, fail(codes.FailedPrecondition, "container %s is not running", id)
		}
		return nil, err
	}
	return &emptypb.Empty{}, nil
}
