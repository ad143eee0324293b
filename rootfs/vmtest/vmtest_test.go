// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestConsole(t *testing.T) {
	c := newConsole()
	go func() {
		for _, part := range []string{"SeaBIOS\r\n", "casemate: rea", "dy: now\r\nqemu: Failed to read msg header. Read -1\n", "rest"} {
			time.Sleep(5 * time.Millisecond)
			fmt.Fprint(c, part)
		}
		c.close()
	}()
	if line, err := c.Expect(t.Context(), "ready"); err != nil || line != "casemate: ready: now" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := c.Expect(t.Context(), "rest"); err == nil {
		t.Error("half a line was taken for one")
	}
	if got := c.String(); got != "SeaBIOS\ncasemate: ready: now\nrest" {
		t.Errorf("got %q", got)
	}
}

func TestConsoleGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := newConsole().Expect(ctx, "x"); err == nil {
		t.Error("nothing was said, and it was found")
	}
}

// TestArguments pins the flags without which emulated machines hang or oops now and then.
func TestArguments(t *testing.T) {
	got := strings.Join(arguments(Config{Kernel: "k", Initrd: "i", MemoryMiB: 256, Disks: []string{"d"}, MAC: "m", Append: "word"}, "s"), " ")
	for _, want := range []string{
		"-accel tcg", "-smp 1", "-M q35,memory-backend=mem", "size=256M,share=on", "-no-reboot", "panic=-1", "-nodefaults",
		"chardev=vsock", "file=d", "virtio-blk-pci,drive=disk0", "-netdev user,id=net", "netdev=net,romfile=,mac=m", "-kernel k -initrd i", "quiet cryptomgr.notests word",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// TestFirmwareArguments: with a unified kernel image the command line is the image's own
// unless the test gives one, and nothing else is loaded.
func TestFirmwareArguments(t *testing.T) {
	c := Config{UKI: "u", TPM: "sock", Clock: "1970-01-01", MemoryMiB: 512, Disks: []string{"d"}, Shared: []string{"s"}, vars: "v"}
	got := strings.Join(arguments(c, "x"), " ")
	for _, want := range []string{
		"-kernel u", "readonly=on,file=" + firmwareCode, "unit=1,format=raw,file=v", "socket,id=tpm,path=sock", "tpm-crb", "-rtc base=1970-01-01",
		"id=disk0,file=d -device", "id=disk1,file=s,readonly=on -device",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "-append") || strings.Contains(got, "-initrd") {
		t.Errorf("a command line or initrd from outside in %s", got)
	}
	if c.Append = "words"; !strings.Contains(strings.Join(arguments(c, "x"), " "), "-append words") {
		t.Error("the host's command line is not passed on")
	}
}

// TestFirmwareWithKernel: variables of the test's own make the firmware start an ordinary kernel.
func TestFirmwareWithKernel(t *testing.T) {
	got := strings.Join(arguments(Config{Kernel: "k", Initrd: "i", MemoryMiB: 256, vars: "v"}, "s"), " ")
	for _, want := range []string{"-kernel k -initrd i -append " + CommandLine, "readonly=on,file=" + firmwareCode, "unit=1,format=raw,file=v"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

func TestImageModuleNames(t *testing.T) {
	for _, want := range []string{"dm_crypt", "vmw_vsock_virtio_transport", "?sev_guest", "?tdx_guest", "tsm.ko.xz"} {
		if !strings.Contains("\n"+moduleNames, "\n"+want+"\n") {
			t.Errorf("modules.txt lacks %s", want)
		}
	}
}

func TestNamed(t *testing.T) {
	if files := []File{{Path: "/a"}}; !named(files, "/a") || named(files, "/b") {
		t.Error("a file is not found by its name")
	}
}
