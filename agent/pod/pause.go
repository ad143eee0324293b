// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pausePath is the pause program inside its container.
const pausePath = "/pause"

// containerTypes are the annotations by which containerd and CRI-O mark a pod's
// first container.
const (
	typeContainerd = "io.kubernetes.cri.container-type"
	typeCRIO       = "io.kubernetes.cri-o.ContainerType"
)

// sandboxMetadata reads {"metadata":{annotations}}. What cannot be read marks no
// pause container.
func sandboxMetadata(raw []byte) bool {
	var doc struct {
		Metadata map[string]string `json:"metadata"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return false
	}
	return doc.Metadata[typeContainerd] == "sandbox" || doc.Metadata[typeCRIO] == "sandbox"
}

// pauseRoot makes a root that holds the pause program and nothing else. The whole
// process is the guest's own: of the request only its limits are left.
func (s *Service) pauseRoot(p *plan, e *entry, dir string) error {
	root := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // the container's root
		return err
	}
	// Made before the root turns read-only: the places of the kernel's file systems.
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil { //nolint:gosec // the container's root
			return err
		}
	}
	program := filepath.Join(root, pausePath)
	if err := os.WriteFile(program, nil, 0o755); err != nil { //nolint:gosec // the container's program
		return err
	}
	if err := unix.Mount(s.cfg.Pause, program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the pause program: %w", err)
	}
	e.undo = append(e.undo, func() error { return unmount(program) })
	if err := unix.Mount("", program, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("protecting the pause program: %w", err)
	}
	p.imageProcess = specs.Process{Args: []string{pausePath}, Cwd: "/", Env: []string{"PATH=/"}}
	return nil
}
