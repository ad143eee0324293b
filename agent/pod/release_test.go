// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestVolumeThatDoesNotClose: an emptyDir's mapping may be in use for longer than its last container, by what another one
// shares of it. It is closed before the next container gets one in its place, and until then nobody gets what is left of
// it, where what is written would be in memory.
func TestVolumeThatDoesNotClose(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sandbox", "data")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Service{cfg: Config{Dir: dir, Devices: missing{}}, volumes: map[string]*volume{}}
	options := volumeOptions{driver: driverBlk, path: path, gid: -1, disk: disk{driver: driverBlk, address: "02"}}
	busy := []error{unix.EBUSY, unix.EBUSY}
	closed := 0
	v := &volume{options: options, holders: 1, close: func() error {
		if closed++; closed <= len(busy) {
			return busy[closed-1]
		}
		return nil
	}}
	s.volumes[path] = v
	if err := s.release(v); !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	mount := specs.Mount{Destination: "/data", Source: path, Options: []string{"rbind"}}
	if err := s.checkSources(new(entry), []specs.Mount{mount}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("what is left is given to a container: %v", err)
	}
	if _, err := s.volumeStats(t.Context(), &kata.VolumeStatsRequest{VolumeGuestPath: path}); status.Code(err) != codes.NotFound {
		t.Errorf("what is left is told of: %v", err)
	}
	if _, err := s.hold(t.Context(), options); !errors.Is(err, unix.EBUSY) || closed != 2 {
		t.Errorf("made in the place of one that is open: %v, %d attempts to close", err, closed)
	}
	// The disk is not there this time, which is found out behind the closing.
	if _, err := s.hold(t.Context(), options); status.Code(err) != codes.NotFound || closed != 3 {
		t.Errorf("the next one: %v, %d attempts to close", err, closed)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || len(s.volumes) != 0 {
		t.Errorf("%d volumes, %v", len(s.volumes), err)
	}
}

// TestVolumeIsSwappedUnderItsMount: a request that mounts a volume without asking for it holds it all the same. Were the
// volume gone with the container that asked for it, the host could copy a tree of its own to where the mount looks.
func TestVolumeIsSwappedUnderItsMount(t *testing.T) {
	dir := t.TempDir()
	s := &Service{cfg: Config{Dir: dir}, volumes: map[string]*volume{}}
	path := filepath.Join(s.shared(), "pod", "rootfs", "local", "data")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	closed := 0
	v := &volume{options: volumeOptions{driver: driverLocal, path: path}, holders: 1, close: func() error { closed++; return nil }}
	s.volumes[path] = v
	other := new(entry)
	if err := s.checkSources(other, []specs.Mount{{Destination: "/data", Source: path, Options: []string{"rbind"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.release(v); err != nil || closed != 0 {
		t.Errorf("the first container went: %v, closed %d times", err, closed)
	}
	if err := s.freeForCopies("pod"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the host may copy there: %v", err)
	}
	if err := other.close(); err != nil || closed != 1 {
		t.Errorf("the second went: %v, closed %d times", err, closed)
	}
}
