// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/verity"
	"github.com/casemate/casemate/verity/layer"
)

// Why layers that the host supplies are refused. The texts name nothing of the host's.
var (
	errLayerCount     = errors.New("the number of devices is not the number of the image's layers")
	errLayerTwice     = errors.New("a layer's device is named twice")
	errLayerUnbound   = errors.New("a device is bound to no layer of the image: its root hash is none that the owner named")
	errLayerEncrypted = errors.New("an encrypted layer is not taken from a device, where it lies in the clear")
	errNotErofs       = errors.New("a layer's device holds no erofs file system")
)

// layerRefusal is which of the refusals an error is, nil when none.
func layerRefusal(err error) error {
	for _, refusal := range []error{
		errLayerCount, errLayerTwice, errLayerEncrypted, errNotErofs, layer.ErrUnbound, verity.ErrSuperblock, verity.ErrTooSmall, errLayerUnbound,
	} {
		if errors.Is(err, refusal) {
			return refusal
		}
	}
	return nil
}

// bindLayers reads what binds each of an image's layers to a device: the manifest's annotations, which the image policy
// has judged with the manifest, or measured configuration. The host has no word in it.
func bindLayers(layers []imagepull.ResolvedLayer, measured map[string]map[string]string) ([]layer.Binding, error) {
	var list []layer.Binding
	for i, l := range layers {
		said := l.Annotations
		_, has := said[layer.PinText]
		extra, ok := measured[l.Digest.String()]
		switch {
		case l.Encrypted:
			return nil, fmt.Errorf("layer %d: %w", i, errLayerEncrypted)
		case ok && has && !agree(said, extra):
			return nil, fmt.Errorf("layer %d: its manifest and measured configuration bind it to different devices", i)
		case ok:
			said = extra
		}
		b, err := layer.Parse(said)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		list = append(list, b)
	}
	return list, nil
}

// agree reports whether a manifest's annotations say all that configuration says, and no more of what counts.
func agree(manifest, measured map[string]string) bool {
	ours := map[string]string{}
	for _, name := range []string{layer.PinText, layer.Implied, layer.Opaque} {
		if value, ok := manifest[name]; ok {
			ours[name] = value
		}
	}
	rest := maps.Clone(measured)
	delete(rest, layer.RootHash)
	return maps.Equal(ours, rest)
}

// layerFile is a device, or file, that the host names, open for its inspection.
type layerFile struct {
	path string
	size uint64
	dev  [2]uint64 // what tells it from others, whatever its names
	r    io.ReaderAt
}

// inspectLayer finds out what a path leads to.
func inspectLayer(f *os.File) (layerFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return layerFile{}, err
	}
	l := layerFile{path: f.Name(), r: f}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		l.dev = [2]uint64{0, st.Rdev}
	case unix.S_IFREG:
		l.dev = [2]uint64{st.Dev + 1, st.Ino}
	default:
		return layerFile{}, fmt.Errorf("%s is neither a block device nor a file", f.Name())
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return layerFile{}, fmt.Errorf("reading the size of %s: %w", f.Name(), err)
	}
	l.size = uint64(size)
	return l, nil
}

// assignLayers finds the device of each binding by what is on it; the order in which the host names them says nothing.
// Equal layers of an image share one device, and there is no device besides.
func assignLayers(bindings []layer.Binding, devices []layerFile) ([]layerFile, error) {
	seen := map[[2]uint64]bool{}
	for _, d := range devices {
		if seen[d.dev] {
			return nil, fmt.Errorf("%s: %w", d.path, errLayerTwice)
		}
		seen[d.dev] = true
	}
	distinct := map[string]bool{}
	for _, b := range bindings {
		distinct[b.Pin.Text()] = true
	}
	if len(distinct) != len(devices) {
		return nil, fmt.Errorf("%w: %d devices, %d different layers", errLayerCount, len(devices), len(distinct))
	}
	found := map[string]layerFile{}
	for _, d := range devices {
		pin, err := pinOf(d, bindings)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.path, err)
		}
		if other, ok := found[pin]; ok {
			return nil, fmt.Errorf("%s and %s hold the same layer: %w", other.path, d.path, errLayerTwice)
		}
		found[pin] = d
	}
	list := make([]layerFile, 0, len(bindings))
	for _, b := range bindings {
		list = append(list, found[b.Pin.Text()])
	}
	return list, nil
}

// pinOf returns the text of the pin that a device belongs to.
func pinOf(d layerFile, bindings []layer.Binding) (string, error) {
	refusal := errLayerUnbound
	for i, b := range bindings {
		err := verity.CheckOneDevice(d.r, d.size, b.Pin)
		switch {
		case err == nil:
			return b.Pin.Text(), nil
		case errors.Is(err, verity.ErrMismatch):
			refusal = errLayerUnbound
		case !errors.Is(err, verity.ErrTooSmall):
			return "", err
		case i == 0:
			refusal = err // unless it is large enough for another
		}
	}
	return "", refusal
}
