// SPDX-License-Identifier: Apache-2.0

//go:build vm && sample

package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/ext4"
)

// emptyExt4 lays out a file system on a new volume.
type emptyExt4 struct{}

func (emptyExt4) Format(w io.WriterAt, size int64) error {
	o, err := ext4.ParseOptions("")
	if err != nil {
		return err
	}
	o.UUID, o.Now = [16]byte{1}, time.Unix(1, 0)
	_, err = ext4.Format(w, size, o)
	return err
}

// TestVMFleetVolumes: the volume that two containers use is opened once and mounted, is
// there again for the next fleet, with a killed one's mapping still in place as well, and
// its device opens as nothing else.
func TestVMFleetVolumes(t *testing.T) {
	const disk = "/dev/vdc"
	blank, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = blank.Write(make([]byte, 4<<20))
	if err := errors.Join(err, blank.Sync(), blank.Close(), os.MkdirAll(config.VolumeKeyDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(config.VolumeKeyDir, "data")
	if err := os.WriteFile(key, bytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(key) })
	m := newMachine()
	m.steps, m.log = steps{w: io.Discard}, slog.New(slog.DiscardHandler)
	if m.conf, err = config.Load(volumeFile(t, 1<<20, config.FSExt4)); err != nil {
		t.Fatal(err)
	}
	data := m.conf.Volumes["data"]
	data.Device = disk
	m.conf.Volumes["data"] = data
	m.conf.Image.Store = t.TempDir()
	use := []config.Mount{{Volume: "data", Path: "/data"}}
	m.conf.Containers = []config.Container{{Name: "a", Volumes: use}, {Name: "b", Volumes: use}}

	c, err := volumeConfig(m.conf, "data")
	if err != nil {
		t.Fatal(err)
	}
	control, err := devmapper.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	keys, err := m.volumeKeys()
	if err != nil {
		t.Fatal(err)
	}
	if err := (storage.Volumes{Mapper: control, Keys: keys}).Create(t.Context(), c, disk, emptyExt4{}); err != nil {
		t.Fatal(err)
	}

	open := func(state string) *fleet {
		t.Helper()
		f, err := m.newFleet(nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.runtime, err = container.New(container.Config{Root: filepath.Join(m.conf.Image.Store, state), Cgroup: "fleet"}); err != nil {
			t.Fatal(err)
		}
		if err := f.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		return f
	}
	killed := open("1")
	file := filepath.Join(killed.volumeDir("data"), "kept")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Nothing of it is closed: that is what a killed process leaves.
	second := open("2")
	if got, err := os.ReadFile(file); err != nil || string(got) != "kept" {
		t.Errorf("after a kill: got %q, %v", got, err)
	}
	if err := second.close(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(second.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory stays: %v", err)
	}
	if list, err := os.ReadDir("/dev/mapper"); err != nil || len(list) != 1 {
		t.Errorf("mapped: %v, %v", list, err)
	}
	third := open("3")
	if got, err := os.ReadFile(file); err != nil || string(got) != "kept" {
		t.Errorf("in the next boot: got %q, %v", got, err)
	}
	if err := third.close(t.Context(), nil); err != nil {
		t.Error(err)
	}

	sectors := 512
	data.SectorSize = &sectors
	m.conf.Volumes["data"] = data
	f, err := m.newFleet(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.openVolumes(t.Context()); err == nil {
		t.Error("a volume of another layout opened")
	}
}
