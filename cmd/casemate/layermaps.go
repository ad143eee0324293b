// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/verity/layer"
)

const (
	// layersDir has a directory for each mapped layer.
	layersDir = "/run/casemate/layers"
	// maxLayerDevices caps the devices of one image, as imagepull does its layers.
	maxLayerDevices = 500
	// erofsMagic is at erofsOffset in an EROFS image (Linux, fs/erofs/erofs_fs.h).
	erofsMagic  = 0xe0f5e1e2
	erofsOffset = 1024
)

// layerMaps are the layers that the host has supplied and that are in use, each mapped once for each device and pin.
type layerMaps struct {
	mu      sync.Mutex // guards the fields below; held while a layer is mapped or unmapped
	control *devmapper.Control
	open    map[layerKey]*mappedLayer
	left    []*mappedLayer // without holders, and not closed
	count   int            // of mappings made, for their names
}

type layerKey struct {
	dev [2]uint64
	pin string
}

// mappedLayer is a layer while somebody has it. Its steps are undone from the last to the first.
type mappedLayer struct {
	key     layerKey
	dir     string
	holders int
	undo    []func() error
}

// layeredImage is an image over mapped layers.
type layeredImage struct {
	*imagepull.Image
	maps *layerMaps
	held []*mappedLayer
}

// Close gives the layers up. What is still in use stays for layerMaps.close.
func (l *layeredImage) Close() error {
	var errs []error
	for _, h := range l.held {
		errs = append(errs, l.maps.release(h))
	}
	l.held = nil
	return errors.Join(errs...)
}

// image opens an image on devices of the host's: what each layer's device must be is read from the verified manifest,
// which is fetched, and measured configuration; no layer is.
func (p *layerMaps) image(ctx context.Context, m *machine, puller *imagepull.Puller, reference string, paths []string) (_ *layeredImage, err error) {
	if len(paths) > maxLayerDevices {
		return nil, fmt.Errorf("%w: %d devices, at most %d", errLayerCount, len(paths), maxLayerDevices)
	}
	resolved, err := puller.Resolve(ctx, reference)
	if err != nil {
		return nil, err
	}
	bindings, err := bindLayers(resolved.Layers, m.conf.Image.Layers)
	if err != nil {
		return nil, err
	}
	var devices []layerFile
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		d, err := inspectLayer(f)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	assigned, err := assignLayers(bindings, devices)
	if err != nil {
		return nil, err
	}
	img := &layeredImage{maps: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, img.Close())
		}
	}()
	var trees []imagepull.LayerTree
	for i, b := range bindings {
		h, err := p.hold(b, assigned[i])
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		img.held = append(img.held, h)
		trees = append(trees, imagepull.LayerTree{Dir: h.dir, Implied: b.Implied, Opaque: b.Opaque})
	}
	img.Image, err = resolved.Image(trees)
	return img, err
}

// hold maps and mounts a layer for its first holder.
func (p *layerMaps) hold(b layer.Binding, d layerFile) (*mappedLayer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := layerKey{d.dev, b.Pin.Text()}
	if h := p.open[key]; h != nil {
		h.holders++
		return h, nil
	}
	if p.control == nil {
		var err error
		if p.control, err = devmapper.Open(); err != nil {
			return nil, err
		}
	}
	p.count++
	h := &mappedLayer{key: key, dir: filepath.Join(layersDir, fmt.Sprintf("%d-%.8x", p.count, b.Pin.RootHash)), holders: 1}
	if err := p.mount(h, b, d); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if p.open == nil {
		p.open = map[layerKey]*mappedLayer{}
	}
	p.open[key] = h
	return h, nil
}

func (p *layerMaps) mount(h *mappedLayer, b layer.Binding, d layerFile) error {
	device := d.path
	if d.dev[0] != 0 { // a file
		loop, err := imagepull.AttachLoop(d.path)
		if err != nil {
			return err
		}
		device, h.undo = loop.Name(), append(h.undo, loop.Close)
	}
	name := "layer-" + filepath.Base(h.dir)
	mapped, err := p.control.Create(devmapper.Mapping{Name: name, ReadOnly: true, Targets: []devmapper.Target{verityTarget(b.Pin, device, device)}})
	if err != nil {
		return err
	}
	h.undo = append(h.undo, func() error { return p.control.Remove(name) })
	if err := checkErofs(mapped.Path); err != nil {
		return err
	}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	h.undo = append(h.undo, func() error { return os.Remove(h.dir) })
	if err := imagepull.MountErofs(mapped.Path, h.dir); err != nil {
		return err
	}
	h.undo = append(h.undo, func() error { return unix.Unmount(h.dir, unix.UMOUNT_NOFOLLOW) })
	return nil
}

// checkErofs looks through the mapping, so that what it reads is bound by the root hash.
func checkErofs(mapped string) error {
	f, err := os.Open(mapped)
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, erofsOffset); err != nil {
		return fmt.Errorf("reading a layer's superblock: %w", err)
	}
	if got := binary.LittleEndian.Uint32(magic); got != erofsMagic {
		return fmt.Errorf("%w: magic number %#x", errNotErofs, got)
	}
	return nil
}

// close undoes the steps. A file system that was let go of may be in use for a moment more.
func (h *mappedLayer) close() error {
	end := time.Now().Add(unmountTime)
	for len(h.undo) > 0 {
		last := len(h.undo) - 1
		err := h.undo[last]()
		if errors.Is(err, unix.EBUSY) && time.Now().Before(end) {
			time.Sleep(unmountPoll)
			continue
		}
		if err != nil {
			return fmt.Errorf("closing layer %s: %w", filepath.Base(h.dir), err)
		}
		h.undo = h.undo[:last]
	}
	return nil
}

// release unmaps a layer behind its last holder. What does not close stays for close to try once more, and is given to
// nobody: a part of it is gone.
func (p *layerMaps) release(h *mappedLayer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.holders--; h.holders > 0 {
		return nil
	}
	delete(p.open, h.key)
	err := h.close()
	if err != nil {
		p.left = append(p.left, h)
	}
	return err
}

// close closes what is still open.
func (p *layerMaps) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	left := slices.AppendSeq(p.left, maps.Values(p.open))
	p.left = nil
	clear(p.open)
	for _, h := range left {
		if err := h.close(); err != nil {
			errs = append(errs, err)
			p.left = append(p.left, h)
		}
	}
	if p.control != nil {
		errs = append(errs, p.control.Close())
		p.control = nil
	}
	return errors.Join(errs...)
}
