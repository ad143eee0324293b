// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestVMHotplug: the disk of a volume that is plugged in while the container's creation waits for it is found behind its
// bridge, made a volume and mounted, and once more as a unit of a SCSI target. A disk that is at another place is not
// taken.
func TestVMHotplug(t *testing.T) {
	ctx, cancel := budgetAlone(t)
	defer cancel()
	disk, err := TempDisk(t.TempDir(), "volume", 96<<20)
	if err != nil {
		t.Fatal(err)
	}
	broker := startBroker(t)
	broker.PutOnce("pod/grant/data", []byte("data"))
	m := podWith(t, ctx, Config{MAC: cardMAC, Hotplug: true}, volumeFiles(t, volumeText(broker)))
	at := func(driver, id string) *kata.Device {
		return &kata.Device{Type: driver, Id: id, ContainerPath: volumeDevice}
	}
	check(t, "hotplug/nothing", func(t *testing.T) {
		start := time.Now()
		_, err := m.CreateContainer(ctx, withVolume(podContainer("none", "container", "/bin/sh", "-c", writeCommand), at("scsi", "3:5")))
		if err == nil || !strings.Contains(err.Error(), `volume "/dev/claim": there is no disk at 3:5`) || time.Since(start) < time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
	check(t, "hotplug/block", func(t *testing.T) {
		plugged := make(chan error, 1)
		time.AfterFunc(time.Second, func() { plugged <- m.vm.PlugBlock(ctx, disk) })
		m.start(t, ctx, withVolume(podContainer("write", "container", "/bin/sh", "-c", writeCommand), at("blk", PlugPath)))
		if err := <-plugged; err != nil {
			t.Fatal(err)
		}
		m.wantOutput(t, ctx, "write", "", volumeMark+"\n1\nls: /dev/claim: No such file or directory\n")
		m.remove(t, ctx, "write")
		m.wantMapped(t, ctx, false)
	})
	if t.Failed() {
		return
	}
	check(t, "hotplug/scsi", func(t *testing.T) {
		plugged := make(chan error, 1)
		time.AfterFunc(time.Second, func() { plugged <- m.vm.PlugSCSI(ctx, disk, 3, 5) })
		m.start(t, ctx, withVolume(podContainer("read", "container", "/bin/sh", "-c", readCommand), at("scsi", "3:5")))
		if err := <-plugged; err != nil {
			t.Fatal(err)
		}
		m.wantOutput(t, ctx, "read", "", volumeMark+"\n")
		if _, err := m.CreateContainer(ctx, withVolume(podContainer("beside", "container", "/bin/sh", "-c", readCommand), at("scsi", "3:6"))); err == nil || !strings.Contains(err.Error(), "there is no disk at 3:6") {
			t.Errorf("another unit: %v", err)
		}
		m.remove(t, ctx, "read")
	})
	check(t, "hotplug/off", func(t *testing.T) { m.destroyWithScratch(t, ctx) })
}
