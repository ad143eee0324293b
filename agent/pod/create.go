// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

// maxContainers bounds the containers of a pod, those that are being made included.
const maxContainers = 256

// cleanupTime bounds what is undone after a creation whose caller may have gone.
const cleanupTime = 30 * time.Second

// createContainer brings the image in and makes the container, which stops before
// the user's program. A runtime never removes what it was not told exists, so a
// creation that fails or comes too late leaves nothing, but for the pull: that goes
// on, and the next creation joins it.
func (s *Service) createContainer(ctx context.Context, req *kata.CreateContainerRequest) (*emptypb.Empty, error) {
	plan, err := s.plan(req)
	if err != nil {
		return nil, err
	}
	box, e, err := s.reserve(plan)
	if err != nil {
		return nil, err
	}
	if s.cfg.Begun != nil {
		s.cfg.Begun(ctx)
	}
	s.cfg.Runtime.Expect()
	if err := s.create(ctx, box, plan, e); err != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		return nil, errors.Join(err, s.giveUp(limited, e))
	}
	return &emptypb.Empty{}, nil
}

// reserve takes the id.
func (s *Service) reserve(p *plan) (*sandbox, *entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox == nil {
		return nil, nil, fail(codes.FailedPrecondition, "there is no sandbox yet")
	}
	if s.containers[p.id] != nil {
		return nil, nil, fail(codes.AlreadyExists, "container %s exists", p.id)
	}
	if len(s.containers) >= maxContainers {
		return nil, nil, fail(codes.ResourceExhausted, "the pod has %d containers", len(s.containers))
	}
	e := &entry{id: p.id, name: p.name, sandbox: p.pause, termination: terminationFile(p.oci)}
	s.containers[p.id] = e
	return s.sandbox, e, nil
}

// create does the work with the id taken. What it has done is in e.undo.
func (s *Service) create(ctx context.Context, box *sandbox, p *plan, e *entry) error {
	dir := filepath.Join(s.cfg.Dir, p.id)
	e.undo = append(e.undo, func() error { return os.RemoveAll(dir) })
	if err := s.rootfs(ctx, p, e, dir); err != nil {
		return err
	}
	if err := s.open(ctx, p, e); err != nil {
		return err
	}
	netNS := s.podNetNS()
	spec, err := p.spec(box.namespaces, netNS)
	if err != nil {
		return err
	}
	if p.user != nil {
		if spec.Process.User, err = e.namedUser("CreateContainerRequest", p.user); err != nil {
			return err
		}
	}
	if err := s.checkSources(e, spec.Mounts); err != nil {
		return err
	}
	if err := p.addVolumes(spec); err != nil {
		return err
	}
	if s.cfg.Admit != nil && !p.pause {
		if err := s.cfg.Admit(&p.imageProcess, spec.Process); err != nil {
			return err
		}
	}
	spec.Root = &specs.Root{Path: filepath.Join(dir, "rootfs"), Readonly: spec.Root.Readonly}
	e.streams = s.streams(spec.Process.Terminal)
	policy := s.beyond(box, p, netNS)
	if err := s.addFunctions(p, spec, &policy); err != nil {
		return err
	}
	c, err := s.cfg.Runtime.Create(ctx, p.id, container.Bundle{Dir: dir, Spec: spec, Policy: policy}, e.streams.stdio())
	if errors.Is(err, container.ErrRefused) {
		// The text names what the request itself asked for.
		return &Failure{Code: codes.PermissionDenied, Phrase: "CreateContainerRequest is blocked by policy: " + err.Error()}
	}
	if err != nil {
		return err
	}
	if err = s.takeShares(ctx, p, c); err == nil {
		err = s.publish(box, p, e, c)
	}
	if err != nil {
		return errors.Join(err, c.Delete(context.WithoutCancel(ctx)))
	}
	return nil
}

// open gets what the container finds besides its image.
func (s *Service) open(ctx context.Context, p *plan, e *entry) error {
	for _, v := range p.volumes {
		release, err := s.hold(ctx, v)
		if err != nil {
			return err
		}
		e.undo = append(e.undo, release)
	}
	if err := s.openDisks(ctx, p, e); err != nil {
		return err
	}
	e.undo = append(e.undo, func() error { return s.leaveFunctions(p.id) })
	return s.openFunctions(ctx, p)
}

// beyond is what a container may have that not every one has: the pod's own.
func (s *Service) beyond(box *sandbox, p *plan, netNS string) container.Policy {
	policy := container.Policy{
		MountSources:   []string{filepath.Join(s.cfg.Dir, "shared", "containers"), filepath.Join(s.cfg.Dir, "sandbox")},
		JoinNamespaces: box.namespaces.shared(),
	}
	for _, v := range p.opened {
		policy.MountSources = append(policy.MountSources, v.Dir)
	}
	if netNS != "" {
		policy.MountSources = append(policy.MountSources, CloudVolumes)
		policy.JoinNamespaces = append(policy.JoinNamespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: netNS})
	}
	return policy
}

// rootfs mounts the image, or the pause program's root, below dir.
func (s *Service) rootfs(ctx context.Context, p *plan, e *entry, dir string) error {
	if p.pause {
		return s.pauseRoot(p, e, dir)
	}
	open := s.cfg.Images.Open
	if len(p.layers) > 0 {
		open = func(ctx context.Context, _, dir string) (*Image, error) { return s.openLayers(ctx, p, dir) }
	}
	img, err := open(ctx, p.image, dir)
	if err != nil {
		return err
	}
	e.undo = append(e.undo, img.Close)
	e.image, e.digest, e.resolve = p.image, img.Digest, img.User
	p.imageProcess = img.Process
	return nil
}

// publish makes the container known and, for the first one of a pod that shares
// it, keeps its PID namespace.
func (s *Service) publish(box *sandbox, p *plan, e *entry, c *container.Container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox != box {
		return fail(codes.FailedPrecondition, "the sandbox was destroyed meanwhile")
	}
	if p.pause && p.sharePID && box.namespaces.pid == "" {
		file := filepath.Join(s.cfg.Dir, "namespaces", "pid")
		if err := pin(fmt.Sprintf("/proc/%d/ns/pid", c.Pid()), file); err != nil {
			return err
		}
		box.namespaces.pid = file
	}
	e.container = c
	return nil
}

// giveUp forgets an id whose container could not be made.
func (s *Service) giveUp(ctx context.Context, e *entry) error {
	if e.streams != nil {
		e.streams.abandon()
	}
	err := e.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(e)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "undoing a creation", "container", e.id, "error", err)
	}
	return nil
}

// drop forgets e, and not another container that has got its id since. The caller holds mu.
func (s *Service) drop(e *entry) {
	if s.containers[e.id] == e {
		delete(s.containers, e.id)
	}
}
