// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/keyprovider"
)

// hubImages pulls for callers of the data hub's socket, kata-agent first of all. Policy,
// credentials and registries are read at the first pull that gets them and then kept,
// as confidential-data-hub does.
type hubImages struct {
	m *machine
	// client and keys are nil where no KBS is configured.
	client *kbs.Client
	keys   keyprovider.KeySource

	// mu guards the fields below.
	mu     sync.Mutex
	dir    string // "" until a puller is made
	puller *imagepull.Puller
}

// pullError has words for the caller, which kata's tests and people look for.
type pullError struct {
	phrase string
	err    error
}

func (e *pullError) Error() string  { return e.err.Error() }
func (e *pullError) Unwrap() error  { return e.err }
func (e *pullError) Phrase() string { return e.phrase }

// worded gives a failed pull confidential-data-hub's words, where it has some.
func worded(err error) error {
	if phrase := pullPhrase(err); phrase != "" {
		return &pullError{phrase, err}
	}
	return err
}

// PullImage pulls and verifies the image, records it, and leaves an OCI bundle at
// bundlePath, absolute, absent or empty: config.json, and rootfs mounted. It returns the
// digest of the platform's manifest. Directories of this machine are not images here.
func (i *hubImages) PullImage(ctx context.Context, imageURL, bundlePath string) (_ string, err error) {
	defer func() { i.m.tell("PullImage", imageURL, ofPull(imageURL, err)) }()
	if !filepath.IsAbs(bundlePath) || filepath.Clean(bundlePath) != bundlePath || bundlePath == "/" {
		return "", fmt.Errorf("pulling for the data hub: bundle path %.128q, want an absolute one", bundlePath)
	}
	if strings.HasPrefix(imageURL, "oci:") {
		return "", fmt.Errorf("pulling for the data hub: %.128q is a directory, want a registry's image", imageURL)
	}
	img, err := i.pull(ctx, imageURL)
	if err != nil {
		return "", worded(err)
	}
	if _, err := imagepull.NewBundle(img, bundlePath, imagepull.BundleOptions{}); err != nil {
		return "", worded(err)
	}
	return img.Manifest.String(), nil
}

// pull pulls and verifies an image and records it.
func (i *hubImages) pull(ctx context.Context, reference string) (_ *imagepull.Image, err error) {
	defer func() { err = ofPull(reference, err) }()
	if err := i.m.canMeasure(); err != nil {
		return nil, err
	}
	puller, err := i.open(ctx)
	if err != nil {
		return nil, err
	}
	img, err := i.m.pullImage(ctx, i.m.steps.quietly(), puller, reference)
	if err != nil {
		return nil, err
	}
	return img, i.m.measureImage(reference, img.Manifest.String())
}

// open returns the puller; one that could not be made is tried again at the next call.
func (i *hubImages) open(ctx context.Context) (*imagepull.Puller, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.puller != nil {
		return i.puller, nil
	}
	if i.dir == "" {
		var err error
		if i.dir, err = i.m.workDir(); err != nil {
			return nil, err
		}
	}
	var unwrapper imagepull.KeyUnwrapper
	if i.client != nil {
		unwrapper = &keyprovider.Unwrapper{Keys: i.keys}
	}
	puller, err := i.m.puller(ctx, i.client, unwrapper, filepath.Join(i.dir, "store"))
	if err != nil {
		return nil, err
	}
	i.puller = puller
	return puller, nil
}

// Close ends running pulls. Bundles stay mounted: containers run in them.
func (i *hubImages) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.puller == nil {
		return nil
	}
	return i.puller.Close()
}
