// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
)

const (
	monitorSocket = "monitor"
	// PlugPath is where a disk that is plugged into the empty port is, as kata writes it.
	PlugPath = "10/00"
	plugSlot = "0x10"
	prompt   = "(qemu) "
	maxReply = 64 << 10
)

// monitorArguments add the socket on which QEMU is told what to do.
func monitorArguments(socket string) []string {
	return []string{"-chardev", "socket,id=monitor,server=on,wait=off,path=" + socket, "-mon", "chardev=monitor,mode=readline"}
}

// plugArguments add what disks are plugged into.
func plugArguments() []string {
	return []string{"-device", "pcie-root-port,id=plug,chassis=1,addr=" + plugSlot, "-device", "virtio-scsi-pci,id=units"}
}

// PowerButton presses the machine's power button.
func (vm *VM) PowerButton(ctx context.Context) error {
	if err := vm.monitor(ctx, order{"system_powerdown", ""}); err != nil {
		return fmt.Errorf("pressing the power button: %w", err)
	}
	return nil
}

// PlugBlock plugs a raw image in as a virtio disk at [PlugPath].
func (vm *VM) PlugBlock(ctx context.Context, image string) error {
	return vm.plug(ctx, "block", image, "virtio-blk-pci,bus=plug,drive=block")
}

// PlugSCSI plugs a raw image in as a unit of a target on the SCSI controller.
func (vm *VM) PlugSCSI(ctx context.Context, image string, target, unit int) error {
	return vm.plug(ctx, "unit", image, fmt.Sprintf("scsi-hd,bus=units.0,drive=unit,channel=0,scsi-id=%d,lun=%d", target, unit))
}

// plug leaves the image unlocked: a test may plug one in twice, when the guest has closed it.
func (vm *VM) plug(ctx context.Context, id, image, device string) error {
	err := vm.monitor(ctx, order{fmt.Sprintf("drive_add 0 if=none,format=raw,cache=unsafe,file.locking=off,id=%s,file=%s", id, image), "OK"}, order{"device_add " + device, ""})
	if err != nil {
		return fmt.Errorf("plugging in %s: %w", image, err)
	}
	return nil
}

// order is a line for QEMU and what it says when that is done.
type order struct{ text, done string }

func (vm *VM) monitor(ctx context.Context, orders ...order) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(vm.dir, monitorSocket))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := reply(c); err != nil {
		return err
	}
	for _, o := range orders {
		if _, err := c.Write([]byte(o.text + "\n")); err != nil {
			return err
		}
		answer, err := reply(c)
		if err != nil {
			return err
		}
		// The line is read back with the terminal's own signs; what is said of it follows.
		_, said, _ := bytes.Cut(answer, []byte("\r\n"))
		if got := string(bytes.TrimSpace(said)); got != o.done {
			return fmt.Errorf("QEMU answers %q to %q", got, o.text)
		}
	}
	return nil
}

// reply reads up to the next prompt.
func reply(c net.Conn) ([]byte, error) {
	var all []byte
	buf := make([]byte, 4<<10)
	for len(all) < maxReply {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		all = append(all, buf[:n]...)
		if rest, ok := bytes.CutSuffix(all, []byte(prompt)); ok {
			return rest, nil
		}
	}
	return nil, errors.New("QEMU's answer has no end")
}
