// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
)

// Stages of incidents, as the owner reads them.
const (
	stagePolicy  = "policy"
	stageRequest = "request"
	stageVolume  = "volume"
	stageScratch = "scratch"
	stageSealed  = "sealed secret"
	stageEnd     = "end"
)

// lastWordsTime is what telling the relying party may hold a guest up that is about to end.
const lastWordsTime = time.Second

// staged is an error that knows what it was about. It reads as the error does.
type staged struct {
	stage, subject string
	err            error
}

func (s *staged) Error() string { return s.err.Error() }
func (s *staged) Unwrap() error { return s.err }

// ofStage says of an error what it was about; nil stays nil, and what is known nearer to the cause stays too.
func ofStage(stage, subject string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*staged](err); ok {
		return err
	}
	return &staged{stage, subject, err}
}

// ofPull is ofStage for an image that could not be had.
func ofPull(reference string, err error) error {
	return ofStage("pull: "+pullStep(err), reference, err)
}

// pullStep is how far a pull came.
func pullStep(err error) string {
	var fault imagepull.Fault
	_, unattested := errors.AsType[*attestError](err)
	switch {
	case unattested:
		return "attestation"
	case errors.Is(err, trust.ErrDenied):
		return "image policy"
	case errors.Is(err, imagepull.ErrUnauthorized):
		return "registry login"
	case errors.Is(err, imagepull.ErrKey):
		return "layer key"
	case errors.Is(err, imagepull.ErrMAC), errors.Is(err, imagepull.ErrPlainDigest):
		return "decryption"
	case layerRefusal(err) != nil:
		return "the host's layers"
	case errors.As(err, &fault):
		return "registry"
	}
	return "image"
}

// told is an error that the relying party hears of by other means.
type told struct{ error }

// Unwrap returns the error.
func (t told) Unwrap() error { return t.error }

// tell keeps for the relying party that something failed; nil and what its caller gave up is nothing.
func (m *machine) tell(request, subject string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if _, ok := errors.AsType[told](err); ok {
		return
	}
	i := evidence.Incident{Stage: stageRequest, Request: request, Subject: subject, Error: err.Error()}
	if s, ok := errors.AsType[*staged](err); ok {
		i.Stage, i.Subject = s.stage, cmp.Or(s.subject, subject)
	}
	m.incidents.Add(i)
}

// worthTelling are the requests whose failure an owner looks for. Others fail as a matter of course: a runtime waits for
// and signals what has ended.
func worthTelling(request string) bool {
	switch request {
	case "CreateSandboxRequest", "CreateContainerRequest", "StartContainerRequest", "ExecProcessRequest", "UpdateContainerRequest",
		"CopyFileRequest", "UpdateInterfaceRequest", "UpdateRoutesRequest", "RemoveContainerRequest", "DestroySandboxRequest":
		return true
	}
	return false
}

// failed is told of requests that the pod did not carry out.
func (p *podImages) failed(request, container string, err error) {
	select {
	case <-p.ready:
	default:
		return // nobody is known who could be told
	}
	if worthTelling(request) {
		p.m.tell(request, container, err)
	}
}

// lastWords tells what has not been told yet, and of a pod that did not end in order.
func (p *podImages) lastWords(err error) {
	select {
	case <-p.ready:
		p.m.lastWords(err)
	default:
	}
}

// lastWords tells what has not been told yet, and how it ended.
func (m *machine) lastWords(err error) {
	if _, ended := errors.AsType[exitStatus](err); !ended { // of the workload's own: what else has failed says so
		m.tell("", "", ofStage(stageEnd, "", err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWordsTime)
	defer cancel()
	m.explains.drain(ctx, m.incidents)
	m.incidents.Flush(ctx)
}

// tellUntil tells of incidents until ctx ends, or what it returns is called with the end.
func (m *machine) tellUntil(ctx context.Context) func(end *error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.incidents.Run(ctx)
	}()
	return func(end *error) {
		cancel()
		<-done
		m.lastWords(*end)
	}
}

// toldUnsealer tells of secrets that do not open.
type toldUnsealer struct {
	m *machine
	unsealer
}

// Unseal opens a sealed secret.
func (u toldUnsealer) Unseal(ctx context.Context, text []byte) ([]byte, error) {
	secret, err := u.unsealer.Unseal(ctx, text)
	u.m.tell("UnsealSecret", "", ofStage(stageSealed, "", err))
	return secret, err
}
