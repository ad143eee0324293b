// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

// hubMounts serves SecureMount to callers of the data hub's socket, kata-agent first of all, which passes on what the
// host has said. What may be mounted stands in services.secure_mount, and where is fixed.
type hubMounts struct {
	m    *machine
	keys volumeKeys

	mu      sync.Mutex // guards the fields below
	control *devmapper.Control
	mounts  *storage.SecureMounts // nil until the first request
}

var errNotMounted = errors.New("services.secure_mount lists nothing")

// SecureMount carries out one request.
func (h *hubMounts) SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) (err error) {
	defer func() { h.m.tell("SecureMount", mountPoint, ofStage(stageVolume, "", err)) }()
	if len(h.m.conf.Services.SecureMount) == 0 {
		return errNotMounted
	}
	request, err := storage.ParseSecureMount(volumeType, options, flags, mountPoint)
	if err != nil {
		return err
	}
	mounts, err := h.open()
	if err != nil {
		return err
	}
	return mounts.Mount(ctx, request)
}

func (h *hubMounts) open() (*storage.SecureMounts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mounts != nil {
		return h.mounts, nil
	}
	var measured []storage.VolumeConfig
	for name := range h.m.conf.Volumes {
		if !slices.Contains(h.m.conf.Services.SecureMount, name) {
			continue
		}
		v, err := volumeConfig(h.m.conf, name)
		if err != nil {
			return nil, err
		}
		measured = append(measured, v)
	}
	control, err := devmapper.Open()
	if err != nil {
		return nil, err
	}
	h.control = control
	h.mounts = &storage.SecureMounts{
		Volumes: h.keys.volumes(control), Measured: measured,
		Scratch: slices.Contains(h.m.conf.Services.SecureMount, config.MountScratch), Cipher: devmapper.AESXTSHMACSHA256,
		Below: []string{pod.DefaultDir}, MakeExt4: newExt4,
	}
	return h.mounts, nil
}

// Close undoes what is not in use: containers may still run on the rest, which then stays.
func (h *hubMounts) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mounts == nil {
		return nil
	}
	err := errors.Join(h.mounts.CloseAll(), h.control.Close())
	h.mounts = nil
	if err != nil {
		return fmt.Errorf("undoing secure mounts: %w", err)
	}
	return nil
}
