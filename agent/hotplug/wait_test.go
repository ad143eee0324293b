// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree is a directory like sysfs: a name with a final slash is a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for name, content := range files {
		grow(t, sys, name, content)
	}
	return sys
}

func grow(t *testing.T, sys, name, content string) {
	t.Helper()
	path := filepath.Join(sys, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if strings.HasSuffix(name, "/") {
		err = errors.Join(err, os.MkdirAll(path, 0o755))
	} else {
		err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// announcer is a source on which a test announces.
type announcer struct {
	events chan string // subsystems
	closed bool
}

func (a *announcer) wait(ctx context.Context, subsystem string) error {
	for {
		select {
		case got := <-a.events:
			if got == subsystem {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *announcer) close() error { a.closed = true; return nil }

// watcher watches a tree in which every node is the device 254:16.
func watcher(sys string, limit time.Duration) (*Watcher, *announcer) {
	a := &announcer{events: make(chan string, 8)}
	return &Watcher{
		sys: sys, dev: "/dev", limit: limit, listen: func() (source, error) { return a, nil },
		number: func(string) (string, error) { return "254:16", nil },
	}, a
}

const number = "254:16\n"

// machine has bridges, a root bus beside the first, SCSI hosts of two kinds, a channel subsystem and disks of each kind.
func machine(t *testing.T) string {
	root := "devices/pci0000:00/"
	return tree(t, map[string]string{
		root + "0000:00:02.0/pci_bus/0000:01/": "", root + "0000:00:02.0/0000:01:0a.0/virtio3/block/vdb/dev": number,
		root + "0000:00:03.0/virtio1/block/vda/dev": number, root + "0000:00:03.0/0000:00:03.1/": "",
		root + "0000:00:04.0/virtio2/net/eth0/": "", root + "0000:00:09.0/net/eth1/": "", root + "0000:00:05.0/virtio4/block/vdc/dev": number, root + "0000:00:05.0/virtio5/block/vdd/dev": number,
		root + "0000:00:07.0/virtio7/block/vdg/dev": "254:32\n", root + "0000:00:08.0/pci_bus/0000:03/": "", root + "0000:00:08.0/pci_bus/0000:04/": "",
		"devices/pci0000:20/0000:20:00.0/pci_bus/0000:21/": "", "devices/pci0000:20/0000:20:00.0/0000:21:02.0/virtio6/block/vde/dev": number,
		"bus/pci/rescan": "", "bus/ccw/devices/0.0.0001/virtio8/block/vdf/dev": number,
		"class/block/vdc/dev": number, "class/block/vdh/dev": number, "class/block/vdh/partition": "1\n", "class/block/pmem0/dev": number, "class/block/vdx/dev": number,
		"class/scsi_host/host0/proc_name": "ahci\n", "class/scsi_host/host0/scan": "", "class/scsi_host/host6/proc_name": "virtio_scsi\n", "class/scsi_host/host6/scan": "",
		"bus/scsi/devices/0:0:0:0/block/sr0/dev": number, "bus/scsi/devices/6:0:0:1/block/sda/dev": number, "bus/scsi/devices/0:0:0:2/block/sdb/dev": number,
	})
}

// TestPlaces finds what is there, each by its own driver alone.
func TestPlaces(t *testing.T) {
	w, a := watcher(machine(t), 20*time.Millisecond)
	for _, tt := range []struct {
		driver, address, want string
		err                   error
	}{
		{Block, "02/0a", "/dev/vdb", nil}, {Block, "03", "/dev/vda", nil}, {Block, "03.0", "/dev/vda", nil}, {Block, "20/00/02", "/dev/vde", nil},
		{Block, "/dev/vdc", "/dev/vdc", nil}, {BlockMem, "/dev/vdc", "/dev/vdc", nil}, {NVDIMM, "/dev/pmem0", "/dev/pmem0", nil},
		{BlockCCW, "0.0.0001", "/dev/vdf", nil}, {SCSI, "0:1", "/dev/sda", nil}, {Net, "04", "eth0", nil}, {Net, "09", "eth1", nil}, {VFIO, "02/0a", "0000:01:0a.0", nil},
		{Block, "02", "", ErrAbsent}, {Block, "04", "", ErrAbsent}, {Block, "06", "", ErrAbsent}, {Block, "03/01", "", ErrAbsent}, {Block, "00/02", "", ErrAbsent},
		{Block, "05", "", errSeveral}, {Block, "08/01", "", errSeveral}, {Net, "03", "", ErrAbsent}, {VFIO, "1f", "", ErrAbsent},
		{SCSI, "0:0", "", ErrAbsent}, {SCSI, "0:2", "", ErrAbsent}, // not on that controller
		{BlockMem, "/dev/vdz", "", ErrAbsent}, {BlockMem, "/dev/vdh", "", ErrAddress}, {BlockCCW, "0.0.0002", "", ErrAbsent}, {Block, "..", "", ErrAddress},
	} {
		got, err := w.Wait(t.Context(), tt.driver, tt.address)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s %s: got %q, %v", tt.driver, tt.address, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), tt.address) {
			t.Errorf("%s %s: the error does not say so: %v", tt.driver, tt.address, err)
		}
	}
	// Nothing could have come: its node is another device's.
	if got, err := w.Wait(t.Context(), Block, "07"); err == nil || !strings.Contains(err.Error(), "254:16 and not 254:32") {
		t.Errorf("another device's node: got %q, %v", got, err)
	}
	if !a.closed {
		t.Error("the socket is left open")
	}
}

// TestBusesAreAsked: a bus that announces nothing is asked to look, a SCSI controller for the one unit, and no other.
func TestBusesAreAsked(t *testing.T) {
	sys := machine(t)
	w, _ := watcher(sys, time.Millisecond)
	_, _ = w.Wait(t.Context(), SCSI, "3:4")
	_, _ = w.Wait(t.Context(), Block, "06")
	for file, want := range map[string]string{"class/scsi_host/host6/scan": "0 3 4", "class/scsi_host/host0/scan": "", "bus/pci/rescan": "1"} {
		if raw, err := os.ReadFile(filepath.Join(sys, file)); err != nil || string(raw) != want {
			t.Errorf("%s: got %q, %v, want %q", file, raw, err, want)
		}
	}
}

// TestWaitForWhatComes: a device that comes after the first look is found by its announcement; one of another subsystem
// is no reason to look.
func TestWaitForWhatComes(t *testing.T) {
	sys := machine(t)
	w, a := watcher(sys, time.Minute)
	got := make(chan string, 1)
	go func() {
		node, err := w.Wait(context.Background(), SCSI, "9:9")
		got <- fmt.Sprint(node, err)
	}()
	a.events <- "net"
	grow(t, sys, "bus/scsi/devices/6:0:9:9/block/sdq/dev", number)
	a.events <- "block"
	select {
	case s := <-got:
		if s != "/dev/sdq<nil>" {
			t.Errorf("got %s", s)
		}
	case <-time.After(time.Minute):
		t.Fatal("the announcement woke nobody")
	}
}

// TestWaitEnds with the caller as with the limit, and says what was waited for.
func TestWaitEnds(t *testing.T) {
	w, _ := watcher(machine(t), time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := w.Wait(ctx, Block, "06"); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrAbsent) {
		t.Errorf("a caller that went: %v", err)
	}
	w.limit = 10 * time.Millisecond
	if _, err := w.Wait(t.Context(), Block, "06"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10ms") {
		t.Errorf("the limit: %v", err)
	}
	w.listen = func() (source, error) { return nil, os.ErrPermission }
	if _, err := w.Wait(t.Context(), Block, "03"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("no socket: %v", err)
	}
}

// TestListener: on the real socket nothing is heard of other subsystems, and a wait that nothing ends is ended.
func TestListener(t *testing.T) {
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.wait(ctx, "casemate"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	start := time.Now()
	if err := l.wait(t.Context(), "casemate"); err != nil || time.Since(start) < recheck/2 {
		t.Errorf("got %v after %v, want a look all the same after %v", err, time.Since(start), recheck)
	}
}
