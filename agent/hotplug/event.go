// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// maxEvent caps an announcement in bytes: the kernel builds it in a buffer of 2048 behind its first line, which has the
// device's path.
const maxEvent = 8 << 10

// maxFields caps an announcement's lines; the kernel has room for 64.
const maxFields = 128

// event is what is read of an announcement.
type event struct {
	action    string // "add", "bind", "change", ...
	subsystem string // "block", "net", "pci", ...
	devtype   string // "disk" or "partition" of a block device
}

var errEvent = errors.New("no announcement of the kernel's")

// parseEvent reads one: "ACTION@PATH", then KEY=VALUE with ACTION, DEVPATH and SUBSYSTEM among them, each behind a NUL.
// The device's path is compared with the first line's and not kept.
func parseEvent(raw []byte) (event, error) {
	if len(raw) > maxEvent {
		return event{}, fmt.Errorf("%w: %d bytes, at most %d", errEvent, len(raw), maxEvent)
	}
	head, rest, ok := bytes.Cut(raw, []byte{0})
	action, path, at := strings.Cut(string(head), "@")
	if !ok || !at || !strings.HasPrefix(path, "/") {
		return event{}, fmt.Errorf("%w: first line %.80q", errEvent, head)
	}
	fields := map[string]string{}
	for len(rest) > 0 {
		var line []byte
		if line, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			return event{}, fmt.Errorf("%w: the last line has no end", errEvent)
		}
		key, value, found := strings.Cut(string(line), "=")
		if _, twice := fields[key]; !found || key == "" || twice || len(fields) == maxFields {
			return event{}, fmt.Errorf("%w: line %.80q", errEvent, line)
		}
		fields[key] = value
	}
	if fields["ACTION"] != action || fields["DEVPATH"] != path || fields["SUBSYSTEM"] == "" {
		return event{}, fmt.Errorf("%w: the lines contradict the first", errEvent)
	}
	return event{action: action, subsystem: fields["SUBSYSTEM"], devtype: fields["DEVTYPE"]}, nil
}

// announces reports whether a device of a subsystem may be there that was not before.
func (e event) announces(subsystem string) bool {
	switch e.action {
	case "add", "bind", "change", "move":
		return e.subsystem == subsystem && e.devtype != "partition"
	}
	return false
}
