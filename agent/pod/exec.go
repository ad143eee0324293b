// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// maxExecs bounds the processes beside a container's first one that nobody has
// waited for.
const maxExecs = 64

// runner is what a first process and a further one have in common.
type runner interface {
	Pid() int
	Wait(ctx context.Context) (container.Exit, error)
	Signal(sig unix.Signal, all bool) error
	Resize(width, height uint16) error
}

// process is one process that the host can name.
type process struct {
	runner
	streams *streams
}

// execProcess starts a further process. That it may is the tenant's policy's word,
// which names the exact command line: no policy of ours allows any (docs/security.md
// 17).
func (s *Service) execProcess(ctx context.Context, req *kata.ExecProcessRequest) (*emptypb.Empty, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	from := req.GetProcess()
	switch id := req.GetExecId(); {
	case container.CheckID(id) != nil || id == e.id:
		return nil, fail(codes.InvalidArgument, "exec id %.140q is no name", id)
	case from == nil:
		return nil, fail(codes.InvalidArgument, "the request has no process")
	case req.GetStdinPort() != 0 || req.GetStdoutPort() != 0 || req.GetStderrPort() != 0:
		return nil, fail(codes.PermissionDenied, "ExecProcessRequest is blocked by policy: passfd: streams go through requests")
	case e.sandbox:
		return nil, fail(codes.PermissionDenied, "ExecProcessRequest is blocked by policy: pause: the pause container has no other process")
	}
	spec := processSpec(from)
	if req.GetStringUser() != nil {
		if spec.User, err = e.namedUser("ExecProcessRequest", req.GetStringUser()); err != nil {
			return nil, err
		}
	}
	// The host may have left out the container's start.
	if err := s.announce(ctx, e); err != nil {
		return nil, err
	}
	p := &process{streams: s.streams(from.GetTerminal())}
	if err := s.reserveExec(e, req.GetExecId(), p); err != nil {
		return nil, err
	}
	made, err := e.container.Exec(ctx, spec, p.streams.stdio())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(e.execs, req.GetExecId())
		return nil, execError(e, err)
	}
	p.runner = made
	return &emptypb.Empty{}, nil
}

// reserveExec takes the id: one that is in use is never given to another process.
func (s *Service) reserveExec(e *entry, id string, p *process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.execs[id] != nil {
		return fail(codes.AlreadyExists, "process %s exists", id)
	}
	if len(e.execs) >= maxExecs {
		return fail(codes.ResourceExhausted, "container %s has %d processes that nobody has waited for", e.id, len(e.execs))
	}
	if e.execs == nil {
		e.execs = map[string]*process{}
	}
	e.execs[id] = p
	return nil
}

func execError(e *entry, err error) error {
	switch {
	case errors.Is(err, container.ErrRefused):
		return &Failure{Code: codes.PermissionDenied, Phrase: "ExecProcessRequest is blocked by policy: " + err.Error()}
	case errors.Is(err, container.ErrNotRunning):
		return fail(codes.FailedPrecondition, "container %s is not running", e.id)
	}
	return err
}

// forget takes a further process off the list once its end has been told.
func (s *Service) forget(id, execID string, p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.containers[id]; e != nil && e.execs[execID] == p { // another may have got the id
		delete(e.execs, execID)
	}
}

// processSpec is a process of a request as it stands, but for the name of an AppArmor profile: that lies in the kernel
// of the host, which sends the name along.
func processSpec(from *kata.Process) *specs.Process {
	out := &specs.Process{
		Terminal: from.GetTerminal(), Args: from.GetArgs(), Env: from.GetEnv(), Cwd: from.GetCwd(),
		User: specs.User{
			UID: from.GetUser().GetUID(), GID: from.GetUser().GetGID(), AdditionalGids: from.GetUser().GetAdditionalGids(),
		},
		NoNewPrivileges: from.GetNoNewPrivileges(), SelinuxLabel: from.GetSelinuxLabel(),
	}
	if b := from.GetConsoleSize(); b.GetHeight() > 0 && b.GetWidth() > 0 {
		out.ConsoleSize = &specs.Box{Height: uint(b.GetHeight()), Width: uint(b.GetWidth())}
	}
	if c := from.GetCapabilities(); c != nil {
		out.Capabilities = &specs.LinuxCapabilities{
			Bounding: c.GetBounding(), Effective: c.GetEffective(), Inheritable: c.GetInheritable(),
			Permitted: c.GetPermitted(), Ambient: c.GetAmbient(),
		}
	}
	for _, r := range from.GetRlimits() {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: r.GetType(), Hard: r.GetHard(), Soft: r.GetSoft()})
	}
	if score := int(from.GetOOMScoreAdj()); score != 0 {
		out.OOMScoreAdj = &score
	}
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	return out
}
