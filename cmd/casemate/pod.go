// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/cdi"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/hotplug"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/cmd/internal/version"
)

const (
	podState = "/run/casemate/pod"
	podStore = "/run/casemate/image"
	// hotplugTime is how long a device that was added for a request may take to show up. kata's agent waits for three
	// seconds, beside a system that is set up by then.
	hotplugTime = 5 * time.Second
)

// podConfig is what differs between a service and the machine's first process.
type podConfig struct {
	init     bool
	reaper   *container.Reaper // nil runs one
	shutdown func()            // when the host has destroyed the sandbox
	log      *slog.Logger
}

// podParts are the pod and what it stands on.
type podParts struct {
	service *pod.Service
	runtime *container.Runtime
	images  *podImages
	scratch scratch
	volumes *podVolumes
}

// podPlaces are the pod's files that may be large: layers, what containers write, and their volumes that are not of
// memory.
func podPlaces() []place {
	return []place{{"image", podStore, 0o700}, {"pod", pod.DefaultDir, 0o755}}
}

// openPod prepares the service that makes containers. It has no image to run before
// images.use has been called.
func openPod(c podConfig) (*podParts, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the pause program: %w", err)
	}
	runtime, err := container.New(container.Config{Root: podState, Reaper: c.reaper, Log: c.log})
	if err != nil {
		return nil, err
	}
	parts := &podParts{runtime: runtime, images: newPodImages(podStore), volumes: new(podVolumes)}
	images := parts.images
	parts.service, err = pod.New(pod.Config{
		Dir: pod.DefaultDir, Runtime: runtime, Images: images, Layers: images, Volumes: parts.volumes, Devices: hotplug.New(hotplugTime), CDI: cdi.New(cdi.Dirs()), NetNS: images.netNS, Sized: parts.scratch.sized, Encrypted: parts.volumes.encrypted, Admit: images.admit, NoLogs: images.noLogs, Begun: agent.Begun, Starting: images.starting, Failed: images.failed,
		Pause: program, Version: version.Number, Init: c.init, Shutdown: c.shutdown, Log: c.log,
	})
	if err != nil {
		return nil, errors.Join(err, runtime.Close(context.Background()))
	}
	return parts, nil
}

// admit asks of a container that it does what its image says, unless the tenant's
// policy has said what containers do.
func (p *podImages) admit(image, requested *specs.Process) error {
	if p.m.rego != nil {
		return nil
	}
	differs := pod.Differs(image, requested)
	if differs == nil {
		return nil
	}
	p.m.admitDenied(differs)
	return told{differs.Refusal()}
}

// noLogs is asked after a request was let in, when the machine is known.
func (p *podImages) noLogs() bool { return p.m.rego == nil && p.m.conf.Agent.Strict }

// netNS is where configuration has the pod's network. It is asked after the door has opened.
func (p *podImages) netNS() string { return p.m.conf.PodNetNS }

// starting records a container before it runs. It is called for one whose image was opened, so the machine is known.
func (p *podImages) starting(s pod.Start) error {
	return p.m.measureStart(started{ID: s.ID, Image: s.Image, Digest: s.Digest})
}

func (p *podParts) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	err := errors.Join(p.service.Close(ctx), p.runtime.Close(ctx), p.images.Close(), p.volumes.close(), p.scratch.close())
	p.images.lastWords(err)
	return err
}
