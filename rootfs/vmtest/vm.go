// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/casemate/casemate/rootfs/vmtest/remote"
	"github.com/casemate/casemate/rootfs/vmtest/vsockdev"
)

const (
	qemu = "qemu-system-x86_64"

	// guestCID is free to choose: every machine has a vsock device of its own.
	guestCID = 42

	// CommandLine begins that of every machine which is started without UKI.
	CommandLine = "console=ttyS0 panic=-1 quiet cryptomgr.notests"

	defaultMemoryMiB = 256
	defaultTimeLimit = 60 * time.Second
	dialInterval     = 20 * time.Millisecond
	killDelay        = 5 * time.Second // timeout kills after two
)

// Config describes a machine.
type Config struct {
	Kernel    string        // path of the ELF image, or of a bzImage, which a machine with a TPM needs
	Initrd    string        // path of the archive
	UKI       string        // path of a unified kernel image, which OVMF starts in place of Kernel and Initrd
	Vars      string        // path of OVMF's variables at first; "" for those that no machine has written to. With them OVMF starts Kernel, a bzImage
	TPM       string        // directory with the state of an swtpm, of which the machine gets a copy; "" for no TPM
	Clock     string        // what the machine's clock says at first, as 1970-01-01; "" for the time
	Disks     []string      // raw images, /dev/vda and on, with the serial numbers disk0 and on
	Shared    []string      // raw images behind Disks that the machine cannot write, and other machines may have too
	Append    string        // more words for the kernel command line, which is the host's to write; with UKI all of it, or "" for the image's own
	MAC       string        // hardware address of a network card, "" for none: the host's loopback is 10.0.2.2 there
	MemoryMiB int           // 256 if 0
	TimeLimit time.Duration // the machine is killed after that; 60 s if 0
	Hotplug   bool          // disks can be plugged in while it runs: there are an empty PCI port and a SCSI controller

	vars    string // OVMF's variables, a copy
	monitor string // QEMU's socket for commands; "" for none
}

// VM is a running machine.
type VM struct {
	Console *Console

	dir     string
	device  *vsockdev.Device
	cmd     *exec.Cmd
	tpm     *exec.Cmd // nil for none
	started time.Time

	stop   sync.Once
	exited chan struct{} // closed when QEMU has ended
	err    error         // how QEMU ended; read after exited
}

// Boot starts a machine. The caller ends it with Stop. ctx bounds the machine's life, as the time limit does.
func Boot(ctx context.Context, c Config) (*VM, error) {
	program, err := exec.LookPath(qemu)
	if err != nil {
		return nil, fmt.Errorf("starting a machine: %w (`make setup` installs it)", err)
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = defaultMemoryMiB
	}
	if c.TimeLimit == 0 {
		c.TimeLimit = defaultTimeLimit
	}
	// Unix socket names are short: not below a test's own long directory.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	vm := &VM{Console: newConsole(), dir: dir, started: time.Now(), exited: make(chan struct{})}
	if vm.device, err = vsockdev.Start(ctx, dir, guestCID); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a machine: %w", err), os.RemoveAll(dir))
	}
	c.monitor = filepath.Join(dir, monitorSocket)
	if err := vm.firmware(ctx, &c); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a machine: %w", err), vm.release())
	}
	// timeout(1) keeps the limit even when this process is killed.
	args := append([]string{"-k", "2", strconv.Itoa(int(c.TimeLimit.Seconds())), program}, arguments(c, vm.device.Socket())...)
	vm.cmd = exec.CommandContext(ctx, "timeout", args...)
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Not SIGKILL: timeout waits for QEMU and so learns its processor time, and kills what stays.
	vm.cmd.Cancel = func() error { return syscall.Kill(-vm.cmd.Process.Pid, syscall.SIGTERM) }
	vm.cmd.WaitDelay = killDelay
	vm.cmd.Stdout, vm.cmd.Stderr = vm.Console, vm.Console
	if err := vm.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a machine: %w", err), vm.release())
	}
	go func() {
		vm.err = vm.cmd.Wait()
		vm.Console.close()
		close(vm.exited)
	}()
	return vm, nil
}

// arguments is the one set of flags that proved reliable: emulation with one processor on q35. Two emulated
// processors oops now and then, microvm hangs now and then. A panic ends QEMU at once (panic=-1 with -no-reboot).
// The vsock device needs the guest's memory to be shared. The kernel's own tests of its ciphers (cryptomgr) would take
// a quarter of the boot.
func arguments(c Config, socket string) []string {
	memory := strconv.Itoa(c.MemoryMiB)
	args := []string{
		"-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", memory,
		"-M", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=" + memory + "M,share=on",
		"-nodefaults", "-no-user-config", "-no-reboot", "-nographic", "-serial", "stdio", "-monitor", "none",
		"-chardev", "socket,id=vsock,path=" + socket, "-device", "vhost-user-vsock-pci,chardev=vsock",
	}
	if c.vars != "" {
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmwareCode, "-drive", "if=pflash,unit=1,format=raw,file="+c.vars)
	}
	if c.UKI != "" {
		args = append(args, "-kernel", c.UKI)
		if c.Append != "" {
			args = append(args, "-append", c.Append)
		}
	} else {
		args = append(args, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", CommandLine+" "+c.Append)
	}
	if c.TPM != "" {
		args = append(args, "-chardev", "socket,id=tpm,path="+c.TPM, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	}
	if c.Clock != "" {
		args = append(args, "-rtc", "base="+c.Clock)
	}
	if c.MAC != "" {
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=,mac="+c.MAC)
	}
	for i, disk := range slices.Concat(c.Disks, c.Shared) {
		id, mode := "disk"+strconv.Itoa(i), ""
		if i >= len(c.Disks) {
			mode = ",readonly=on"
		}
		args = append(args, "-drive", "if=none,format=raw,cache=unsafe,id="+id+",file="+disk+mode, "-device", "virtio-blk-pci,drive="+id+",serial="+id)
	}
	if c.monitor != "" {
		args = append(args, monitorArguments(c.monitor)...)
	}
	if c.Hotplug {
		args = append(args, plugArguments()...)
	}
	return args
}

// Age is the time since the machine was started.
func (vm *VM) Age() time.Duration { return time.Since(vm.started) }

// Dial connects to an AF_VSOCK port of the guest, trying again until something listens there or ctx ends.
func (vm *VM) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		c, err := vsockdev.Dial(ctx, vm.device.HostSocket(), port)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-vm.exited:
			return nil, errors.Join(errors.New("the machine has ended"), err)
		case <-time.After(dialInterval):
		}
	}
}

// DialOnce is Dial without trying again.
func (vm *VM) DialOnce(ctx context.Context, port uint32) (net.Conn, error) {
	return vsockdev.Dial(ctx, vm.device.HostSocket(), port)
}

// Run runs a test program inside the guest, copies what it prints to out and returns its exit status.
func (vm *VM) Run(ctx context.Context, r remote.Request, out io.Writer) (status int, err error) {
	c, err := vm.Dial(ctx, remote.Port)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	status, err = remote.Do(c, r, out)
	return status, errors.Join(err, c.Close(), ctx.Err())
}

// Wait waits until the machine has ended by itself, or ctx ends.
func (vm *VM) Wait(ctx context.Context) error {
	select {
	case <-vm.exited:
		if vm.err != nil {
			return fmt.Errorf("running the machine: %w", vm.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the machine to end: %w", ctx.Err())
	}
}

// CPU is the processor time that the emulator took, known once the machine has ended.
func (vm *VM) CPU() time.Duration {
	select {
	case <-vm.exited:
		return vm.cmd.ProcessState.UserTime() + vm.cmd.ProcessState.SystemTime()
	default:
		return 0
	}
}

// Stop ends the machine if it still runs, and removes what it needed.
func (vm *VM) Stop() error {
	var err error
	vm.stop.Do(func() {
		select {
		case <-vm.exited:
		default:
			err = vm.cmd.Cancel()
			<-vm.exited
		}
		err = errors.Join(err, vm.release())
	})
	return err
}

// release ends what runs beside the machine and removes its directory.
func (vm *VM) release() error {
	if vm.tpm != nil {
		_ = vm.tpm.Process.Kill()
		_ = vm.tpm.Wait()
	}
	return errors.Join(vm.device.Stop(), os.RemoveAll(vm.dir))
}

// TempDisk makes an empty raw image of size bytes in dir.
func TempDisk(dir, name string, size int64) (string, error) {
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Truncate(size), f.Close())
}
