// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	first, second = "0000:01:00.0", "0000:01:00.1"
	devices       = "bus/pci/devices/"
)

// functions is a tree with two PCI functions, one with a driver, in the groups named.
func functions(t *testing.T, groups ...string) string {
	t.Helper()
	sys := tree(t, map[string]string{
		"bus/pci/drivers_probe": "", "bus/pci/drivers/mlx5_core/unbind": "", "bus/pci/drivers/vfio-pci/unbind": "",
		devices + first + "/driver_override": "", devices + second + "/driver_override": "",
	})
	for i, f := range []string{first, second} {
		if groups[i] != "" {
			grow(t, sys, "kernel/iommu_groups/"+groups[i]+"/devices/", "")
			link(t, "../../../../kernel/iommu_groups/"+groups[i], filepath.Join(sys, devices, f, "iommu_group"))
		}
	}
	link(t, filepath.Join(sys, "bus/pci/drivers/mlx5_core"), filepath.Join(sys, devices, first, "driver"))
	return sys
}

func link(t *testing.T, target, at string) {
	t.Helper()
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestBind takes functions from their drivers and finds the node of their group, which may take a moment.
func TestBind(t *testing.T) {
	sys := functions(t, "7", "7")
	w, a := watcher(sys, time.Minute)
	looked := 0
	w.character = func(node string) (uint64, error) {
		if node != "/dev/vfio/7" {
			t.Errorf("looked for %s", node)
		}
		if looked++; looked == 1 {
			a.events <- "vfio"
			return 0, ErrAbsent
		}
		return unix.Mkdev(243, 3), nil
	}
	g, err := w.Bind(t.Context(), []string{first, second})
	if err != nil || g.Path != "/dev/vfio/7" || g.Type != "c" || g.Major != 243 || g.Minor != 3 {
		t.Errorf("got %+v, %v", g, err)
	}
	for file, want := range map[string]string{
		devices + first + "/driver_override": vfioDriver, devices + second + "/driver_override": vfioDriver,
		"bus/pci/drivers/mlx5_core/unbind": first, "bus/pci/drivers/vfio-pci/unbind": "", "bus/pci/drivers_probe": second, // the last one
	} {
		if got := read(t, filepath.Join(sys, file)); !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	// One that has the driver already is left alone.
	if err := os.Remove(filepath.Join(sys, devices, first, "driver")); err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(sys, "bus/pci/drivers/vfio-pci"), filepath.Join(sys, devices, first, "driver"))
	if _, err := w.Bind(t.Context(), []string{first}); err != nil || read(t, filepath.Join(sys, "bus/pci/drivers/vfio-pci/unbind")) != "" {
		t.Errorf("bound again: %v", err)
	}
}

// TestBindRefused: no address becomes a path before it is one, and a function that is in no group, or in another, is
// not given away.
func TestBindRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		groups []string
		names  []string
		want   string
	}{
		"none":                  {[]string{"7", "7"}, nil, "no PCI function"},
		"a path":                {[]string{"7", "7"}, []string{"../../../etc"}, "want DDDD:BB:SS.F"},
		"one that is not there": {[]string{"7", "7"}, []string{"0000:09:00.0"}, "no such file"},
		"no group":              {[]string{"7", ""}, []string{second}, "in no group"},
		"two groups":            {[]string{"7", "8"}, []string{second, first}, "want one"},
		"a group by a name":     {[]string{"x", "x"}, []string{second}, "want one"},
	} {
		sys := functions(t, tt.groups...)
		w, _ := watcher(sys, time.Millisecond)
		w.character = func(string) (uint64, error) { return 0, nil }
		if g, err := w.Bind(t.Context(), tt.names); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v", name, g, err)
		}
	}
	w, _ := watcher(functions(t, "7", "7"), time.Millisecond)
	w.character = characterDevice
	if _, err := w.Bind(t.Context(), []string{second}); !errors.Is(err, ErrAbsent) {
		t.Errorf("no node: %v", err)
	}
}

// TestBindStranger: whoever has a group's node drives every function of the group that has the driver. One that another
// container was given is not handed out with it; one that the guest's own driver has keeps the kernel from opening the
// group, and one without a driver nobody can drive.
func TestBindStranger(t *testing.T) {
	for name, tt := range map[string]struct {
		driver string // of the second function
		names  []string
		ok     bool
	}{
		"of another container": {vfioDriver, []string{first}, false},
		"asked for too":        {vfioDriver, []string{first, second}, true},
		"the guest's":          {"mlx5_core", []string{first}, true},
		"nobody's":             {"", []string{first}, true},
	} {
		sys := functions(t, "7", "7")
		grow(t, sys, "kernel/iommu_groups/7/devices/", "")
		for _, f := range []string{first, second} {
			link(t, filepath.Join(sys, devices, f), filepath.Join(sys, "kernel/iommu_groups/7/devices", f))
		}
		if tt.driver != "" {
			link(t, filepath.Join(sys, "bus/pci/drivers", tt.driver), filepath.Join(sys, devices, second, "driver"))
		}
		w, _ := watcher(sys, time.Minute)
		w.character = func(string) (uint64, error) { return unix.Mkdev(243, 3), nil }
		g, err := w.Bind(t.Context(), tt.names)
		var stranger interface {
			error
			Stranger() string
		}
		if (err == nil) != tt.ok || err != nil && (!errors.As(err, &stranger) || stranger.Stranger() != second) {
			t.Errorf("%s: got %+v, %v", name, g, err)
		}
	}
}
