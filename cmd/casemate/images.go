// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
	"github.com/casemate/casemate/keyprovider"
)

// podImages brings images into a pod. It can be asked before the guest has been
// accepted: then it waits.
type podImages struct {
	store string
	ready chan struct{} // closed once machine is set
	m     *machine

	mu     sync.Mutex // guards puller; held while the first one is made
	puller *imagepull.Puller
	keys   *keyprovider.Cache

	layers layerMaps
}

func newPodImages(store string) *podImages {
	return &podImages{store: store, ready: make(chan struct{})}
}

// use says what the guest is. It is called once.
func (p *podImages) use(m *machine) {
	p.m = m
	close(p.ready)
}

// Open pulls an image and mounts it below dir.
func (p *podImages) Open(ctx context.Context, reference, dir string) (*pod.Image, error) {
	img, err := p.pull(ctx, reference)
	if err != nil {
		return nil, hostPhrase(reference, err)
	}
	return p.bundle(img, reference, dir)
}

// OpenLayers opens an image on devices that the host has plugged in and mounts it below dir.
func (p *podImages) OpenLayers(ctx context.Context, reference, dir string, devices []string) (*pod.Image, error) {
	puller, err := p.ask(ctx)
	if err != nil {
		return nil, hostPhrase(reference, err)
	}
	img, err := p.layers.image(ctx, p.m, puller, reference, devices)
	if err != nil {
		return nil, hostPhrase(reference, err)
	}
	if err := p.m.measureImage(reference, img.Manifest.String()); err != nil {
		return nil, errors.Join(hostPhrase(reference, err), img.Close())
	}
	opened, err := p.bundle(img.Image, reference, dir)
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	unmount := opened.Close
	opened.Close = func() error {
		if err := unmount(); err != nil {
			return err
		}
		return img.Close()
	}
	return opened, nil
}

// bundle mounts an image below dir.
func (p *podImages) bundle(img *imagepull.Image, reference, dir string) (*pod.Image, error) {
	// The command is the request's affair: an image may name none.
	bundle, err := imagepull.NewBundle(img, dir, imagepull.BundleOptions{Entrypoint: []string{"/"}})
	if err != nil {
		return nil, hostPhrase(reference, err)
	}
	c := img.Config
	return &pod.Image{
		Digest: img.Manifest.String(),
		Process: specs.Process{
			Args: append(append([]string{}, c.Entrypoint...), c.Cmd...), Env: c.Env, Cwd: bundle.Spec.Process.Cwd, User: bundle.Spec.Process.User,
		},
		User: func(spec string) (specs.User, error) {
			return imagepull.ResolveUser(filepath.Join(dir, "rootfs"), spec)
		},
		Close: bundle.Close,
	}, nil
}

func (p *podImages) pull(ctx context.Context, reference string) (*imagepull.Image, error) {
	puller, err := p.ask(ctx)
	if err != nil {
		return nil, err
	}
	img, err := p.m.pullImage(ctx, p.m.steps.quietly(), puller, reference)
	if err != nil {
		return nil, err
	}
	return img, p.m.measureImage(reference, img.Manifest.String())
}

// ask waits for the guest to be accepted and returns the puller.
func (p *podImages) ask(ctx context.Context) (*imagepull.Puller, error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := p.m.canMeasure(); err != nil {
		return nil, err
	}
	return p.open(ctx)
}

// open attests and makes the puller, once. A failure is not kept: the next pull may
// find the network up.
func (p *podImages) open(ctx context.Context) (*imagepull.Puller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.puller != nil {
		return p.puller, nil
	}
	client, err := p.m.attested(ctx)
	if err != nil {
		return nil, p.m.notAttested(err)
	}
	var unwrapper imagepull.KeyUnwrapper
	if client != nil {
		p.keys = keyprovider.NewCache(client, client)
		unwrapper = &keyprovider.Unwrapper{Keys: p.keys}
	}
	puller, err := p.m.puller(ctx, client, unwrapper, p.store)
	if err != nil {
		return nil, err
	}
	p.puller = puller
	return puller, nil
}

// Close ends running pulls and forgets keys.
func (p *podImages) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys != nil {
		p.keys.Clear()
	}
	err := p.layers.close()
	if p.puller == nil {
		return err
	}
	return errors.Join(err, p.puller.Close())
}

// hostPhrase is what the host may know of a failed pull: what it asked for and a
// fixed phrase.
func hostPhrase(reference string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	code, phrase := codes.Internal, pullPhrase(err)
	if errors.Is(err, trust.ErrDenied) || errors.Is(err, imagepull.ErrUnauthorized) || layerRefusal(err) != nil {
		code = codes.PermissionDenied
	}
	if phrase == "" {
		phrase = "see the guest's own log"
	}
	return &pod.Failure{Code: code, Phrase: fmt.Sprintf("Failed to pull image %.512s: %s", reference, phrase), Err: ofPull(reference, err)}
}

// pullPhrase names the fault in the words that kata's own tests look for; "" when it is
// this machine's.
func pullPhrase(err error) string {
	var fault imagepull.Fault
	if refused, ok := errors.AsType[*attestError](err); ok {
		return refused.reason.String()
	}
	switch {
	case errors.Is(err, trust.ErrDenied):
		return "Image policy rejected: Denied by policy"
	case errors.Is(err, imagepull.ErrUnauthorized):
		return "Not authorized"
	case errors.Is(err, imagepull.ErrKey), errors.Is(err, imagepull.ErrMAC), errors.Is(err, imagepull.ErrPlainDigest):
		return "Failed to decrypt the image layer, please ensure that the decryption key is placed and correct"
	case errors.As(err, &fault):
		return fault.Error()
	}
	if refusal := layerRefusal(err); refusal != nil {
		return refusal.Error()
	}
	return ""
}
