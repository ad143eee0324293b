// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Caps of what is read.
const (
	maxFiles = 64
	maxFile  = 1 << 20
	maxEdits = 4096 // of one kind in one place
)

// file is a specification. JSON is read as the YAML that it is.
type file struct {
	Version     string            `yaml:"cdiVersion"`
	Kind        string            `yaml:"kind"`
	Annotations map[string]string `yaml:"annotations"`
	Devices     []device          `yaml:"devices"`
	Edits       edits             `yaml:"containerEdits"` // whichever of the devices is asked for
}

type device struct {
	Name        string            `yaml:"name"`
	Annotations map[string]string `yaml:"annotations"`
	Edits       edits             `yaml:"containerEdits"`
}

type edits struct {
	Env        []string       `yaml:"env"`
	Nodes      []node         `yaml:"deviceNodes"`
	Mounts     []mount        `yaml:"mounts"`
	Groups     []uint32       `yaml:"additionalGids"`
	Hooks      []any          `yaml:"hooks"`
	RDT        map[string]any `yaml:"intelRdt"`
	NetDevices []any          `yaml:"netDevices"`
}

type node struct {
	Path        string  `yaml:"path"`
	HostPath    string  `yaml:"hostPath"` // "host" is whoever runs containers: this guest
	Type        string  `yaml:"type"`
	Major       int64   `yaml:"major"`
	Minor       int64   `yaml:"minor"`
	FileMode    *uint32 `yaml:"fileMode"`
	Permissions string  `yaml:"permissions"`
	UID         *uint32 `yaml:"uid"`
	GID         *uint32 `yaml:"gid"`
}

type mount struct {
	HostPath      string   `yaml:"hostPath"`
	ContainerPath string   `yaml:"containerPath"`
	Type          string   `yaml:"type"`
	Options       []string `yaml:"options"`
}

var (
	kind       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z0-9][A-Za-z0-9_-]*$`)
	deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]*$`)
)

// parse reads one specification.
func parse(raw []byte) (*file, error) {
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d", len(raw), maxFile)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	f := new(file)
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	if err := d.Decode(new(file)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if f.Version == "" || !kind.MatchString(f.Kind) {
		return nil, fmt.Errorf("cdiVersion %q, kind %q: want both, the kind as VENDOR/CLASS", f.Version, f.Kind)
	}
	if len(f.Devices) == 0 || len(f.Devices) > maxEdits {
		return nil, fmt.Errorf("%d devices, want 1 to %d", len(f.Devices), maxEdits)
	}
	if err := f.Edits.check(); err != nil {
		return nil, err
	}
	var names []string
	for _, dev := range f.Devices {
		if !deviceName.MatchString(dev.Name) || slices.Contains(names, dev.Name) {
			return nil, fmt.Errorf("device %q: no name, or one that is taken", dev.Name)
		}
		names = append(names, dev.Name)
		if err := dev.Edits.check(); err != nil {
			return nil, fmt.Errorf("device %q: %w", dev.Name, err)
		}
	}
	return f, nil
}

// check refuses what no container is given.
func (e *edits) check() error {
	switch {
	case len(e.Hooks) > 0:
		return errors.New("hooks: programs outside of the container are not started")
	case e.RDT != nil || len(e.NetDevices) > 0:
		return errors.New("intelRdt and netDevices are not served")
	case max(len(e.Env), len(e.Nodes), len(e.Mounts), len(e.Groups)) > maxEdits:
		return fmt.Errorf("more than %d edits of one kind", maxEdits)
	}
	for _, n := range e.Nodes {
		if !clean(n.Path) || n.HostPath != "" && !clean(n.HostPath) || !slices.Contains([]string{"", "c", "u"}, n.Type) {
			return fmt.Errorf("device node %q of type %q: want a clean absolute path and a character device", n.Path, n.Type)
		}
	}
	for _, m := range e.Mounts {
		if !clean(m.HostPath) || !clean(m.ContainerPath) || m.Type != "" && m.Type != "bind" {
			return fmt.Errorf("mount of %q at %q of type %q: want clean absolute paths, bound", m.HostPath, m.ContainerPath, m.Type)
		}
	}
	return nil
}

func clean(path string) bool { return filepath.IsAbs(path) && filepath.Clean(path) == path }

// load reads every specification of the directories. One that is absent is empty.
func load(dirs []string) ([]*file, error) {
	var all []*file
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading device specifications: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if !slices.Contains([]string{".yaml", ".json"}, filepath.Ext(path)) {
				continue
			}
			if len(all) == maxFiles {
				return nil, fmt.Errorf("reading device specifications: more than %d files", maxFiles)
			}
			raw, err := readFile(path)
			if err != nil {
				return nil, fmt.Errorf("reading device specification: %w", err)
			}
			f, err := parse(raw)
			if err != nil {
				return nil, fmt.Errorf("reading device specification %s: %w", path, err)
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}
