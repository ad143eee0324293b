// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kernelLog = "/dev/kmsg"
	// fpdtDir is where Linux shows the firmware's own record of its boot (ACPI 6.5, section
	// 5.2.24; Documentation/ABI/testing/sysfs-firmware-acpi), in nanoseconds since reset.
	fpdtDir = "/sys/firmware/acpi/fpdt/boot"
	// eventLogFile is the firmware's event log of a TD.
	eventLogFile = "/sys/firmware/acpi/tables/data/CCEL"

	// maxKernelRecords is far above what a kernel says before its first process.
	maxKernelRecords = 8192
	// maxFirmware is longer than any boot; more is no time.
	maxFirmware = int64(24 * time.Hour / time.Microsecond)
)

// earlyStages are those before the first process: what firmware wrote down, and what the
// kernel's log says of itself.
func earlyStages() []stage {
	return append(firmwareStages(fpdtDir), kernelStages(kernelLog)...)
}

// firmwareStages count back from the kernel's start, which the boot program's leaving the
// firmware is taken for. A firmware without a table, such as QEMU's, gives none.
func firmwareStages(dir string) []stage {
	value := func(name string) int64 {
		raw, err := readCapped(filepath.Join(dir, name), 64)
		if err != nil {
			return 0
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err != nil {
			return 0
		}
		return ns / 1000
	}
	launched, left := value("bootloader_launch_ns"), value("exitbootservice_end_ns")
	if launched <= 0 || left < launched || left > maxFirmware {
		return nil
	}
	return []stage{
		{Name: "firmware: until it started the boot program", At: -left, Took: launched},
		{Name: "boot program: until it left the firmware", At: launched - left, Took: left - launched},
	}
}

// kernelMarks are the messages that end a stage of the kernel's, in their order.
func kernelMarks() []kernelMark {
	return []kernelMark{
		{"kernel: until its memory was set up", "Memory: ", ""},
		{"kernel: until the initrd was unpacked", "Freeing initrd memory", ""},
		{"kernel: until the first process", "Run ", " as init process"},
	}
}

type kernelMark struct{ stage, prefix, suffix string }

// kernelStages reads the kernel's log from its beginning, as far as it is still there.
func kernelStages(path string) []stage {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return readKernelStages(func(b []byte) (int, error) { return unix.Read(fd, b) })
}

// readKernelStages takes a record with each read (Documentation/ABI/testing/dev-kmsg).
// Records of programs do not count, whatever they say.
func readKernelStages(read func([]byte) (int, error)) (list []stage) {
	var last int64
	marks, record := kernelMarks(), make([]byte, 8<<10)
	for range maxKernelRecords {
		n, err := read(record)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue // some were overwritten meanwhile
		}
		if err != nil || n <= 0 || len(marks) == 0 {
			break
		}
		at, text, ok := kernelRecord(record[:n])
		for i, mark := range marks {
			if ok && at >= last && strings.HasPrefix(text, mark.prefix) && strings.HasSuffix(text, mark.suffix) {
				list = append(list, stage{Name: mark.stage, At: last, Took: at - last})
				last, marks = at, marks[i+1:]
				break
			}
		}
	}
	return list
}

// kernelRecord returns the time in microseconds and the text of a record by the kernel.
func kernelRecord(record []byte) (at int64, text string, ok bool) {
	head, rest, found := bytes.Cut(record, []byte(";"))
	fields := strings.Split(string(head), ",")
	if !found || len(fields) < 4 {
		return 0, "", false
	}
	priority, err1 := strconv.ParseUint(fields[0], 10, 32)
	at, err2 := strconv.ParseInt(fields[2], 10, 64)
	if err1 != nil || err2 != nil || priority>>3 != 0 || at < 0 {
		return 0, "", false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return at, string(line), true
}

// firmwareNote says what is known of the firmware's part, "" where its times are among the
// stages.
func firmwareNote(early []stage) string {
	if len(early) > 0 && early[0].At < 0 {
		return ""
	}
	note := "it left no record of its times (ACPI FPDT)"
	if info, err := os.Stat(eventLogFile); err == nil {
		note += fmt.Sprintf("; its event log (CCEL) is there, of %d bytes and without times", info.Size())
	}
	return note
}
