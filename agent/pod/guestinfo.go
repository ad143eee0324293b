// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	memoryBlockSize = "/sys/devices/system/memory/block_size_bytes"
	memoryProbe     = "/sys/devices/system/memory/probe"
	processors      = "/sys/devices/system/cpu"
)

// guestDetails tells what a runtime needs to know before it creates containers.
func (s *Service) guestDetails(_ context.Context, req *kata.GuestDetailsRequest) (*kata.GuestDetailsResponse, error) {
	out := &kata.GuestDetailsResponse{AgentDetails: &kata.AgentDetails{
		Version: s.cfg.Version, InitDaemon: s.cfg.Init, SupportsSeccomp: true,
		StorageHandlers: []string{driverEphemeral, driverLocal, pullDriver},
	}}
	if req.GetMemBlockSize() {
		raw, err := os.ReadFile(memoryBlockSize)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading the memory block size: %w", err)
		}
		if err == nil {
			if out.MemBlockSizeBytes, err = strconv.ParseUint(string(bytes.TrimSpace(raw)), 16, 64); err != nil {
				return nil, fmt.Errorf("reading the memory block size: %w", err)
			}
		}
	}
	if req.GetMemHotplugProbe() {
		_, err := os.Stat(memoryProbe)
		out.SupportMemHotplugProbe = err == nil
	}
	return out, nil
}

// onlineCPUs brings processors into use that the machine has been given. Memory
// that is added later is not accepted: see the table of refused methods.
func (s *Service) onlineCPUs(_ context.Context, req *kata.OnlineCPUMemRequest) (*emptypb.Empty, error) {
	files, err := filepath.Glob(filepath.Join(processors, "cpu[0-9]*", "online"))
	if err != nil {
		return nil, err
	}
	left := req.GetNbCpus()
	for _, file := range files {
		if left == 0 {
			break
		}
		raw, err := os.ReadFile(file)
		if err != nil || string(bytes.TrimSpace(raw)) != "0" {
			continue
		}
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			return nil, fmt.Errorf("bringing a processor online: %w", err)
		}
		left--
	}
	return &emptypb.Empty{}, nil
}
