// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

const (
	// maxShares caps the mounts that a container takes over from others.
	maxShares = 64
	// shareTime is how long another container's program may take to mount what is to be shared.
	shareTime = 10 * time.Second
	sharePoll = 50 * time.Millisecond
)

// share is a mount of another container of the pod's that the new one is to have as well.
type share struct{ from, source, target string }

// parseShares reads a request's shared mounts, all of which must be meant for its own container. Whether a container may
// have any is the policy's to say: names of containers, and what is mounted over what, are the host's words.
func (p *plan) parseShares(list []*kata.SharedMount) error {
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: shared-mounts: %s", what)
	}
	if len(list) > maxShares {
		return fail(codes.InvalidArgument, "%d shared mounts, at most %d", len(list), maxShares)
	}
	for _, m := range list {
		switch {
		case p.name == "" || m.GetDstCtr() != p.name:
			return refused("container " + quoted(m.GetDstCtr()) + " is not the request's")
		case m.GetSrcCtr() == "" || m.GetSrcCtr() == p.name:
			return refused("container " + quoted(m.GetSrcCtr()) + " is not another one")
		}
		p.shares = append(p.shares, share{m.GetSrcCtr(), m.GetSrcPath(), m.GetDstPath()})
	}
	return nil
}

// containerName is what the pod's file calls a container; "" where the engine does not say.
func containerName(annotations map[string]string) string {
	for _, key := range []string{"io.kubernetes.cri.container-name", "io.kubernetes.container.name"} {
		if name := annotations[key]; name != "" {
			return name
		}
	}
	return ""
}

// named finds the one container of this name that has been made.
func (s *Service) named(name string) (*container.Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *container.Container
	for _, e := range s.containers {
		switch {
		case e.container == nil || e.name != name:
		case found != nil:
			return nil, fail(codes.FailedPrecondition, "shared mount: several containers are named %s", quoted(name))
		default:
			found = e.container
		}
	}
	if found == nil {
		return nil, fail(codes.NotFound, "shared mount: there is no container %s", quoted(name))
	}
	return found, nil
}

// takeShares gives the new container the mounts before its program runs. One that the other container's program has
// not made yet is waited for.
func (s *Service) takeShares(ctx context.Context, p *plan, c *container.Container) error {
	ctx, cancel := context.WithTimeout(ctx, shareTime)
	defer cancel()
	for _, m := range p.shares {
		from, err := s.named(m.from)
		if err != nil {
			return err
		}
		for {
			err := from.Share(m.source, c, m.target)
			if err == nil {
				break
			}
			if errors.Is(err, container.ErrRefused) {
				return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: shared-mounts: %s or %s is no path that is shared", quoted(m.source), quoted(m.target))
			}
			if !errors.Is(err, container.ErrNoMount) {
				return &Failure{Code: codes.FailedPrecondition, Phrase: "shared mount: " + quoted(m.source) + " of container " + quoted(m.from) + " cannot be shared", Err: err}
			}
			select {
			case <-ctx.Done():
				return &Failure{Code: codes.FailedPrecondition, Phrase: "shared mount: nothing is mounted at " + quoted(m.source) + " of container " + quoted(m.from), Err: err}
			case <-time.After(sharePoll):
			}
		}
	}
	return nil
}
