// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/rootfs/cpio"
)

const (
	// DebugMark is a file that every debug guest has, and no other. An initramfs has it in
	// front and unpacked, where whoever measures the file finds it.
	DebugMark = "/etc/casemate/debug"

	debugShell = "/bin/busybox"
	// debugTag is the build tag of a program with a shell and free exec.
	debugTag = "debug"
)

// debugNames are the names under which a debug guest has its one program of tools.
func debugNames() []string {
	return []string{"cat", "df", "dmesg", "env", "find", "free", "grep", "ip", "kill", "ls", "mount", "ps", "sh", "top", "vi"}
}

// addDebug makes t a debug guest's tree: shells may be added from now on.
func (t *Tree) addDebug() error {
	t.debug = true
	return t.Add(Entry{Path: DebugMark, Kind: File, Perm: filePerm, Text: "The host has a shell in this guest.\n"})
}

// addShell adds the owner's busybox.
func (t *Tree) addShell(busybox string) error {
	if err := checkStatic(busybox); err != nil {
		return fmt.Errorf("taking %s as the shell: %w", busybox, err)
	}
	list := []Entry{{Path: debugShell, Kind: File, Perm: programPerm, HostPath: busybox}}
	for _, name := range debugNames() {
		list = append(list, Entry{Path: "/bin/" + name, Kind: Link, Target: "busybox"})
	}
	return t.Add(list...)
}

// checkProgram wants a static program, and one built with the tag debug for debug guests
// alone: the mark of the image must tell the truth about it.
func checkProgram(name string, debug bool) error {
	if err := checkStatic(name); err != nil {
		return fmt.Errorf("taking %s into the guest: %w", name, err)
	}
	switch tagged := hasDebugTag(name); {
	case tagged && !debug:
		return fmt.Errorf("taking %s into the guest: it is a debug build, which gives the host a shell: want --debug", name)
	case !tagged && debug:
		return fmt.Errorf("taking %s into the guest: want a program built with the tag %s, as bin/casemate-debug", name, debugTag)
	}
	return nil
}

// hasDebugTag reads what the Go linker notes. A program without it is no casemate and
// none for debugging either.
func hasDebugTag(name string) bool {
	info, err := buildinfo.ReadFile(name)
	if err != nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" && slices.Contains(strings.Split(s.Value, ","), debugTag) {
			return true
		}
	}
	return false
}

// writeMark writes the archive that stands in front of a debug guest's own.
func writeMark(w *cpio.Writer, t *Tree) error {
	return errors.Join(archiveEntry(w, t.entries[DebugMark]), w.Close())
}

// Fields of a newc header (kernel Documentation/driver-api/early-userspace/buffer-format.rst):
// 8 hexadecimal digits each behind the magic.
const (
	newcMagic  = "070701"
	newcHeader = 110
	newcSize   = 6
	newcName   = 11

	// maxMarkEntries is above what writeMark writes: two directories, the mark and the end.
	maxMarkEntries = 8
)

// Debug reports whether an initial RAM file system is that of a debug guest: whether it
// begins with writeMark's archive.
func Debug(initramfs []byte) bool {
	for range maxMarkEntries {
		if len(initramfs) < newcHeader || !bytes.HasPrefix(initramfs, []byte(newcMagic)) {
			return false
		}
		size, ok1 := newcField(initramfs, newcSize)
		length, ok2 := newcField(initramfs, newcName)
		data := padded(newcHeader + length)
		if !ok1 || !ok2 || length == 0 || data > int64(len(initramfs)) {
			return false
		}
		if string(initramfs[newcHeader:newcHeader+length-1]) == DebugMark[1:] {
			return true
		}
		next := data + padded(size)
		if next > int64(len(initramfs)) {
			return false
		}
		initramfs = initramfs[next:]
	}
	return false
}

func newcField(header []byte, i int) (int64, bool) {
	at := len(newcMagic) + 8*i
	n, err := strconv.ParseUint(string(header[at:at+8]), 16, 32)
	return int64(n), err == nil
}

func padded(n int64) int64 { return (n + 3) &^ 3 }
