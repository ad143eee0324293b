// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func announcement(lines ...string) []byte { return []byte(strings.Join(lines, "\x00") + "\x00") }

const added = "add@/devices/pci0000:00/0000:00:02.0/virtio0/block/vda"

func disk(more ...string) []byte {
	return announcement(append([]string{added, "ACTION=add", "DEVPATH=" + strings.TrimPrefix(added, "add@"), "SUBSYSTEM=block", "SEQNUM=7"}, more...)...)
}

// TestEvents: what is announced counts only for its subsystem, and a partition for none.
func TestEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		raw  []byte
		want bool // a disk may have come
	}{
		"a disk":         {disk("MAJOR=254", "MINOR=0", "DEVNAME=vda", "DEVTYPE=disk"), true},
		"of no type":     {disk(), true},
		"a partition":    {disk("DEVTYPE=partition"), false},
		"an interface":   {announcement("add@/devices/x", "ACTION=add", "DEVPATH=/devices/x", "SUBSYSTEM=net"), false},
		"one that went":  {announcement("remove@/devices/x", "ACTION=remove", "DEVPATH=/devices/x", "SUBSYSTEM=block"), false},
		"an empty value": {disk("ID="), true},
	} {
		e, err := parseEvent(tt.raw)
		if err != nil || e.announces("block") != tt.want {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
}

// TestEventsRefused: what is not the kernel's form is nobody's announcement.
func TestEventsRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"empty":                     nil,
		"udev's":                    []byte("libudev\x00\xfe\xed\xca\xfe"),
		"no path":                   announcement("add", "ACTION=add", "SUBSYSTEM=block"),
		"a relative path":           announcement("add@devices/x", "ACTION=add", "DEVPATH=devices/x", "SUBSYSTEM=block"),
		"no end":                    []byte(strings.TrimSuffix(string(disk()), "\x00")),
		"no subsystem":              announcement(added, "ACTION=add", "DEVPATH="+added[4:]),
		"another action":            announcement(added, "ACTION=remove", "DEVPATH="+added[4:], "SUBSYSTEM=block"),
		"another path":              announcement(added, "ACTION=add", "DEVPATH=/devices/other", "SUBSYSTEM=block"),
		"a key twice":               disk("SUBSYSTEM=net"),
		"a line without a key":      disk("=x"),
		"a line that is none":       disk("x"),
		"an empty line":             disk("", "A=b"),
		"a line that hides a NUL":   append(disk(), 'A'),
		"more bytes than there are": append(disk(), bytes.Repeat([]byte("A=b\x00"), maxEvent)...),
	} {
		if e, err := parseEvent(raw); !errors.Is(err, errEvent) {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(disk("DEVTYPE=disk"))
	f.Add([]byte("libudev\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEvent(raw)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(raw, []byte(e.action+"@/")) || !bytes.Contains(raw, []byte("\x00SUBSYSTEM="+e.subsystem+"\x00")) || strings.ContainsRune(e.subsystem+e.devtype, 0) {
			t.Errorf("%q: %+v", raw, e)
		}
	})
}
