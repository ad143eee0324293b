// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/api/kata"
)

// opensLayers keeps what it was asked for.
type opensLayers struct{ image, devices string }

func (o *opensLayers) OpenLayers(_ context.Context, image, _ string, devices []string) (*Image, error) {
	o.image, o.devices = image, fmt.Sprint(devices)
	return nil, errors.New("asked")
}

// layered is a request for layers on devices; change changes it.
func layered(change func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	r := &kata.CreateContainerRequest{
		ContainerId: "app",
		OCI: &kata.Spec{
			Process: &kata.Process{}, Root: &kata.Root{}, Linux: &kata.Linux{},
			Annotations: map[string]string{imageContainerd: "registry.example/app:1", typeContainerd: "container"},
		},
		Storages: []*kata.Storage{
			{Driver: "blk", Source: "05", Fstype: "ext4", Options: []string{"rw", upperOption, layerOption, "X-kata.mkdir.path={{ mount 0 }}/upper"}},
			{Driver: "blk", Source: "02/0a", Fstype: "erofs", Options: []string{"ro", lowerOption, layerOption, "X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=00", "X-kata.dmverity.no-superblock="}},
			{Driver: "mmioblk", Source: "/dev/vdb", Fstype: "erofs", Options: []string{lowerOption, layerOption, gptOption, "X-kata.partition-number=1"}},
			{Driver: layersDriver, Source: "/dev/vdb", Fstype: "erofs", Options: []string{gptOption, "X-kata.partition-number=2"}},
		},
	}
	change(r)
	return r
}

// TestLayerStorages: of what the host says about layers only their places and the image's name are taken.
func TestLayerStorages(t *testing.T) {
	type req = kata.CreateContainerRequest
	s := &Service{cfg: Config{Dir: DefaultDir, Layers: &opensLayers{}, Devices: missing{}}}
	p, err := s.plan(layered(func(*req) {}))
	if err != nil {
		t.Fatal(err)
	}
	want := []layerDevice{
		{disk: disk{driver: "blk", address: "02/0a"}}, {disk: disk{driver: "mmioblk", address: "/dev/vdb"}, partition: 1}, {disk: disk{driver: "blk", address: "/dev/vdb"}, partition: 2},
	}
	if p.image != "registry.example/app:1" || p.pause || !reflect.DeepEqual(p.layers, want) {
		t.Errorf("got %q, %v, %+v", p.image, p.pause, p.layers)
	}
	p, err = s.plan(layered(func(r *req) {
		r.OCI.Annotations = map[string]string{imageCRIO: "registry.example/other:1", typeCRIO: "container"}
	}))
	if err != nil || p.image != "registry.example/other:1" {
		t.Errorf("CRI-O's annotations: %+v, %v", p, err)
	}
	p, err = s.plan(layered(func(r *req) { r.OCI.Annotations[typeContainerd] = "sandbox" }))
	if err != nil || !p.pause || p.image != "" || p.layers != nil {
		t.Errorf("the pause container: %+v, %v", p, err)
	}
	lower := func(change func(*kata.Storage)) func(*req) { return func(r *req) { change(r.Storages[1]) } }
	option := func(text string) func(*req) {
		return lower(func(st *kata.Storage) { st.Options = append(st.Options, text) })
	}
	for name, tt := range map[string]struct {
		change func(*req)
		want   string
	}{
		"ext4 as a layer":           {lower(func(st *kata.Storage) { st.Fstype = "ext4" }), `file system "ext4" is not served`},
		"squashfs as a layer":       {lower(func(st *kata.Storage) { st.Fstype = "squashfs" }), `file system "squashfs" is not served`},
		"no file system":            {lower(func(st *kata.Storage) { st.Fstype = "" }), `file system "" is not served`},
		"a writable layer":          {option("rw"), `option "rw" is not served`},
		"a layer with set-uid":      {option("suid"), `option "suid" is not served`},
		"a directory's making":      {option("X-kata.mkdir.path=/etc"), "is not served"},
		"both":                      {option(upperOption), "both writable and a layer"},
		"partition 0":               {option("X-kata.partition-number=0"), "is not served"},
		"partition 129":             {option("X-kata.partition-number=129"), "is not served"},
		"partition of words":        {option("X-kata.partition-number=../1"), "is not served"},
		"driver options":            {lower(func(st *kata.Storage) { st.DriverOptions = []string{"encryption_key=ephemeral"} }), "driver option"},
		"SCSI":                      {lower(func(st *kata.Storage) { st.Driver = "scsi" }), `driver "scsi" with source`},
		"a node elsewhere":          {lower(func(st *kata.Storage) { st.Source = "/dev/../etc/passwd" }), "is not served"},
		"a node of a mapping":       {lower(func(st *kata.Storage) { st.Source = "/dev/mapper/root" }), "is not served"},
		"a PCI path that escapes":   {lower(func(st *kata.Storage) { st.Source = "02/../.." }), "is not served"},
		"one device twice":          {func(r *req) { r.Storages = append(r.Storages, r.Storages[1]) }, "named twice"},
		"one partition twice":       {func(r *req) { r.Storages = append(r.Storages, r.Storages[3]) }, "named twice"},
		"no layer":                  {func(r *req) { r.Storages = r.Storages[:1] }, "there is no layer"},
		"no name":                   {func(r *req) { r.OCI.Annotations = nil }, "no annotation names the image"},
		"a long name":               {func(r *req) { r.OCI.Annotations[imageContainerd] = strings.Repeat("a", maxReference+1) }, "at most"},
		"beside a pull":             {func(r *req) { r.Storages = append(r.Storages, &kata.Storage{Driver: pullDriver, Source: "x"}) }, "a container has one image"},
		"more storages than a disk": {func(r *req) { r.Storages = append(r.Storages, make([]*kata.Storage, maxStorages)...) }, "at most"},
	} {
		if _, err := s.plan(layered(tt.change)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if _, err := (&Service{cfg: Config{Devices: missing{}}}).plan(layered(func(*req) {})); err == nil || !strings.Contains(err.Error(), "does not take layers") {
		t.Errorf("where none are served: %v", err)
	}
}

// TestPartitionOf finds a disk and its partitions as the kernel names them.
func TestPartitionOf(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{"vdb/vdb1/partition": "1\n", "vdb/vdb12/partition": "12\n", "nvme0n1/nvme0n1p3/partition": "3\n", "vdb/queue/x": ""} {
		file := filepath.Join(sys, "class/block", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		node   string
		number int
		want   string
	}{{"/dev/vdb", 0, "/dev/vdb"}, {"/dev/vdb", 1, "/dev/vdb1"}, {"/dev/vdb", 12, "/dev/vdb12"}, {"/dev/nvme0n1", 3, "/dev/nvme0n1p3"}, {"/dev/vdb", 2, ""}} {
		got, err := partitionOf(sys, tt.node, tt.number)
		if (err == nil) != (tt.want != "") || err == nil && got != tt.want {
			t.Errorf("%s, %d: got %q, %v", tt.node, tt.number, got, err)
		}
	}
	if _, err := partitionOf(sys, "/dev/vdc", 0); err == nil {
		t.Error("a disk that is not there")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := waitForPartition(ctx, sys, "/dev/vdc", 0); err == nil {
		t.Error("waited for nothing and got it")
	}
}

// TestOpenLayers hands the places on and nothing else.
func TestOpenLayers(t *testing.T) {
	o := &opensLayers{}
	s := &Service{cfg: Config{Layers: o}}
	if _, err := s.openLayers(t.Context(), &plan{image: "app:1"}, t.TempDir()); err == nil || o.image != "app:1" || o.devices != "[]" {
		t.Errorf("got %+v, %v", o, err)
	}
}
