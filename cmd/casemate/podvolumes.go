// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

// volumesDir has a directory for each open volume.
const volumesDir = "/run/casemate/volumes"

// podVolumes opens the volumes that containers ask for, each once however many have it.
type podVolumes struct {
	accept sync.Mutex // guards m together with mu: whoever reads it has one of them, and use has both
	m      *machine   // nil until the guest has been accepted

	mu      sync.Mutex // guards the fields below; held while one is opened or closed
	keys    *volumeKeys
	control *devmapper.Control
	open    map[string]*heldVolume
	// emptyDirs counts those that there have been, for their names.
	emptyDirs int
}

// heldVolume is a volume while somebody has it.
type heldVolume struct {
	node    string                     // the disk that it was opened from
	mounted interface{ Close() error } // a *storage.Mounted
	holders int
}

// use says what the guest is. It is called once, before anybody asks for a volume.
func (p *podVolumes) use(m *machine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accept.Lock()
	defer p.accept.Unlock()
	p.m, p.open = m, map[string]*heldVolume{}
}

// Known reports whether a device path is that of a volume which containers may have. It waits for no volume that is being
// opened: the policy holds all other requests back meanwhile.
func (p *podVolumes) Known(path string) bool {
	p.accept.Lock()
	defer p.accept.Unlock()
	return p.named(path) != ""
}

func (p *podVolumes) named(path string) string {
	if p.m == nil {
		return ""
	}
	for name, v := range p.m.conf.Volumes {
		if v.Device == path && v.Mount != "" {
			return name
		}
	}
	return ""
}

// Open opens the volume of a device path on the host's disk node, which is any that the host likes: the volume's key
// tells whether it is the one.
func (p *podVolumes) Open(ctx context.Context, path, node string) (_ *pod.Volume, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.named(path)
	defer func() { err = ofStage(stageVolume, cmp.Or(name, path), err) }()
	if name == "" {
		return nil, fmt.Errorf("opening %.128q: no volume has this device", path)
	}
	h := p.open[name]
	if h != nil && h.holders == 0 { // it did not close: whether its mount is still there nobody knows
		if err := p.shut(name, h); err != nil && !errors.Is(err, storage.ErrNotCounted) {
			return nil, err
		}
		h = nil
	}
	switch {
	case h == nil:
		var err error
		if h, err = p.mount(ctx, name, node); err != nil {
			return nil, err
		}
		p.open[name] = h
	case h.node != node:
		return nil, fmt.Errorf("opening volume %s: it is open from another disk", name)
	}
	h.holders++
	return &pod.Volume{Dir: filepath.Join(volumesDir, name), Mount: p.m.conf.Volumes[name].Mount, Close: func() error { return p.release(name) }}, nil
}

func (p *podVolumes) mount(ctx context.Context, name, node string) (*heldVolume, error) {
	if p.keys == nil {
		keys, err := p.m.volumeKeys()
		if err != nil {
			return nil, err
		}
		p.keys = &keys
	}
	if p.control == nil {
		var err error
		if p.control, err = devmapper.Open(); err != nil {
			return nil, err
		}
	}
	c, err := volumeConfig(p.m.conf, name)
	if err != nil {
		return nil, err
	}
	volumes := p.keys.volumes(p.control)
	if err := p.firstUse(ctx, volumes, c, node); err != nil {
		return nil, err
	}
	mounted, err := storage.MountVolume(ctx, volumes, c, node, filepath.Join(volumesDir, name, pod.VolumeRoot))
	if err != nil {
		return nil, err
	}
	return &heldVolume{node: node, mounted: mounted}, nil
}

// encrypted makes an emptyDir of all of a disk, under a key that ends with it.
func (p *podVolumes) encrypted(ctx context.Context, node, point string) (_ func() error, err error) {
	defer func() { err = ofStage(stageVolume, point, err) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		return nil, errors.New("the guest has not been accepted")
	}
	if p.control == nil {
		var err error
		if p.control, err = devmapper.Open(); err != nil {
			return nil, err
		}
	}
	f, err := newExt4(emptyDirFS)
	if err != nil {
		return nil, err
	}
	p.emptyDirs++
	c := storage.ScratchConfig{Name: fmt.Sprintf("casemate-emptydir-%d", p.emptyDirs), Device: node, Cipher: devmapper.AESXTSHMACSHA256}
	mounted, err := storage.MountScratch(ctx, p.control, c, f, point)
	if err != nil {
		return nil, err
	}
	return func() error { return closeMounted(mounted) }, nil
}

// firstUse makes the volume on a blank disk where configuration provides for it and the relying party has left to give.
// Leave is asked for once the disk is known to be blank, since asking spends it. A disk that is not blank is never made
// one, whatever else is wrong with it; a blank one without leave is not made either.
func (p *podVolumes) firstUse(ctx context.Context, v storage.Volumes, c storage.VolumeConfig, node string) error {
	conf := p.m.conf.Volumes[c.Name]
	if conf.Create != config.CreateFirstUse {
		return nil
	}
	blank, err := storage.Blank(c, node)
	if err != nil || !blank {
		return err
	}
	grant, err := p.keys.Key(ctx, conf.Grant)
	if err != nil {
		return fmt.Errorf("volume %s is on a blank disk, and there is no leave to make it: %w", c.Name, err)
	}
	defer clear(grant)
	if string(bytes.TrimSpace(grant)) != c.Name {
		return fmt.Errorf("volume %s is on a blank disk, and what the relying party released is leave for something else", c.Name)
	}
	f, err := volumeMaker(conf)
	if err != nil {
		return err
	}
	return v.Create(ctx, c, node, f)
}

// release closes a volume behind its last holder. What does not close is kept, for the next to try once more; what is
// closed and was not counted is closed.
func (p *podVolumes) release(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.open[name]
	if h == nil {
		return nil
	}
	if h.holders--; h.holders > 0 {
		return nil
	}
	return p.shut(name, h)
}

func (p *podVolumes) shut(name string, h *heldVolume) error {
	err := closeMounted(h.mounted)
	if err == nil || errors.Is(err, storage.ErrNotCounted) {
		delete(p.open, name)
	}
	if err != nil {
		return fmt.Errorf("closing volume %s: %w", name, err)
	}
	return nil
}

// close closes what is still open.
func (p *podVolumes) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for name, h := range p.open {
		errs = append(errs, p.shut(name, h))
	}
	if p.keys != nil {
		p.keys.close()
		p.keys = nil
	}
	if p.control != nil {
		errs = append(errs, p.control.Close())
		p.control = nil
	}
	return errors.Join(errs...)
}

// forRun opens the volumes that have a place in containers, from the disks that configuration itself names, and adds
// them to the one container of a run. The policy is what that container may have beyond the defaults.
func (p *podVolumes) forRun(ctx context.Context, m *machine, bundle *imagepull.Bundle) (container.Policy, error) {
	p.use(m)
	var policy container.Policy
	for _, name := range slices.Sorted(maps.Keys(m.conf.Volumes)) {
		device := m.conf.Volumes[name].Device
		if device == "" {
			continue
		}
		err := m.steps.do("open volume "+name, func() error {
			node, err := waitForDisk(ctx, device)
			if err != nil {
				return err
			}
			v, err := p.Open(ctx, device, node)
			if err != nil {
				return err
			}
			bundle.Spec.Mounts = append(bundle.Spec.Mounts, v.Bind())
			policy.MountSources = append(policy.MountSources, v.Dir)
			return nil
		})
		if err != nil {
			return policy, err
		}
	}
	return policy, nil
}
