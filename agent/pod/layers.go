// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// Layers opens images whose layers the host has plugged in as block devices.
type Layers interface {
	// OpenLayers is Images.Open for such an image. devices are the guest's own nodes, in no order that means anything:
	// each must be what the owner bound a layer of the image to, and there must be no other.
	OpenLayers(ctx context.Context, reference, dir string, devices []string) (*Image, error)
}

// Names in the storages of kata 4.1's erofs snapshots.
const (
	layersDriver   = "erofs.multi-layer"
	layerOption    = "X-kata.multi-layer=true"
	upperOption    = "X-kata.overlay-upper"
	lowerOption    = "X-kata.overlay-lower"
	verityPrefix   = "X-kata.dmverity" // -enabled=, .roothash= and others
	mkdirPrefix    = "X-kata.mkdir.path="
	gptOption      = "X-kata.gpt-partitioned=true"
	partitionStart = "X-kata.partition-number="

	// maxPartition is the most that a GPT of the usual size has.
	maxPartition = 128
	// partitionTime is how long the kernel may take to read a disk's table.
	partitionTime = 5 * time.Second
	partitionPoll = 20 * time.Millisecond
)

var errNoPartition = errors.New("there is no such partition")

// The annotations by which containerd and CRI-O say which image a container is of.
const (
	imageContainerd = "io.kubernetes.cri.image-name"
	imageCRIO       = "io.kubernetes.cri-o.ImageName"
)

// layerDevice is where the host says that a layer is.
type layerDevice struct {
	disk
	partition int // 0 is the whole disk
}

// isLayer reports whether a storage is part of a root file system of plugged-in layers.
func isLayer(st *kata.Storage) bool {
	return st.GetDriver() == layersDriver || slices.Contains(st.GetOptions(), layerOption)
}

// parseLayer reads one such storage. Of the host's word only the place counts: root hashes and the like that it gives are
// not read, since those that count are the owner's. The writable layer is not taken either, which would show the host
// what containers write: that goes where it goes for every image.
func (s *Service) parseLayer(p *plan, st *kata.Storage) error {
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: layer storage: %s", what)
	}
	upper := slices.Contains(st.GetOptions(), upperOption)
	switch {
	case upper && slices.Contains(st.GetOptions(), lowerOption):
		return refused("it is both writable and a layer")
	case !upper && st.GetFstype() != "erofs":
		return refused("file system " + quoted(st.GetFstype()) + " is not served")
	case len(st.GetDriverOptions()) > 0:
		return refused("driver option " + quoted(st.GetDriverOptions()[0]) + " is not served")
	}
	d := layerDevice{}
	for _, option := range st.GetOptions() {
		number, isNumber := strings.CutPrefix(option, partitionStart)
		switch {
		case option == layerOption, option == upperOption, option == lowerOption, option == gptOption, option == "ro":
		case strings.HasPrefix(option, verityPrefix):
		case upper && (option == "rw" || strings.HasPrefix(option, mkdirPrefix)):
		case isNumber:
			n, err := strconv.ParseUint(number, 10, 8)
			if err != nil || n == 0 || n > maxPartition || d.partition != 0 {
				return refused("option " + quoted(option) + " is not served")
			}
			d.partition = int(n)
		default:
			return refused("option " + quoted(option) + " is not served")
		}
	}
	if upper {
		return nil
	}
	driver := st.GetDriver()
	if driver == layersDriver {
		driver = driverBlk
	}
	var ok bool
	if d.disk, ok = s.diskAt(driver, st.GetSource()); !ok {
		return refused("driver " + quoted(st.GetDriver()) + " with source " + quoted(st.GetSource()) + " is not served")
	}
	if slices.ContainsFunc(p.layers, func(o layerDevice) bool { return o.address == d.address && o.partition == d.partition }) {
		return refused("a layer's device is named twice")
	}
	p.layers = append(p.layers, d)
	return nil
}

// layeredImage completes a plan with layers: a root file system has one source, and the request names the image beside
// it. Which image that may be is the image policy's to say, as with a pull.
func (p *plan) layeredImage(served bool) error {
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: layer storage: %s", what)
	}
	annotations := p.oci.GetAnnotations()
	if annotations[typeContainerd] == "sandbox" || annotations[typeCRIO] == "sandbox" {
		p.pause, p.layers = true, nil
		return nil
	}
	if p.image = annotations[imageContainerd]; p.image == "" {
		p.image = annotations[imageCRIO]
	}
	switch {
	case !served:
		return refused("this guest does not take layers from its host")
	case len(p.layers) == 0:
		return refused("there is no layer")
	case p.image == "":
		return refused("no annotation names the image")
	case len(p.image) > maxReference:
		return fail(codes.InvalidArgument, "image reference of %d bytes, at most %d", len(p.image), maxReference)
	}
	return nil
}

// openLayers waits for the devices and opens the image on them.
func (s *Service) openLayers(ctx context.Context, p *plan, dir string) (*Image, error) {
	var nodes []string
	for _, d := range p.layers {
		node, err := s.cfg.Devices.Wait(ctx, d.driver, d.address)
		if err == nil {
			node, err = waitForPartition(ctx, "/sys", node, d.partition)
		}
		if err != nil {
			return nil, &Failure{Code: codes.NotFound, Phrase: fmt.Sprintf("layer storage: there is no disk at %s", quoted(d.address)), Err: err}
		}
		nodes = append(nodes, node)
	}
	return s.cfg.Layers.OpenLayers(ctx, p.image, dir, nodes)
}

// waitForPartition is partitionOf for a disk that the host may just have plugged in.
func waitForPartition(ctx context.Context, sys, node string, number int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, partitionTime)
	defer cancel()
	for {
		found, err := partitionOf(sys, node, number)
		if err == nil {
			return found, nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(partitionPoll):
		}
	}
}

// partitionOf returns the node of a disk's partition, or with 0 the disk's own, once the kernel knows it.
func partitionOf(sys, node string, number int) (string, error) {
	dir := filepath.Join(sys, "class/block", filepath.Base(node))
	if number == 0 {
		_, err := os.Stat(dir)
		return node, err
	}
	list, err := filepath.Glob(filepath.Join(dir, "*/partition"))
	if err != nil {
		return "", err
	}
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(number) {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", fmt.Errorf("disk %s has no partition %d: %w", node, number, errNoPartition)
}
