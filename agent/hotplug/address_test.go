// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddresses: an address has one form, its driver's, and nothing of it can lead anywhere else.
func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ driver, address string }{
		{Block, "02"}, {Block, "02/0a"}, {Block, "1f.7"}, {Block, "02.1/00.0/1f"}, {Block, "20/00/02"}, {Block, "/dev/vdb"}, {Block, "/dev/sdaa"},
		{BlockMem, "/dev/vdc"}, {BlockCCW, "0.0.0001"}, {BlockCCW, "f.3.00ff"}, {NVDIMM, "/dev/pmem1"},
		{SCSI, "0:0"}, {SCSI, "255:16383"}, {VFIO, "02/00.1"}, {Net, "03/01"},
	} {
		if err := Check(tt.driver, tt.address); err != nil {
			t.Errorf("%s %q: %v", tt.driver, tt.address, err)
		}
	}
	for _, tt := range []struct{ driver, address string }{
		{Block, ""}, {Block, "/"}, {Block, ".."}, {Block, "02/"}, {Block, "/02"}, {Block, "02//03"}, {Block, "02/../.."}, {Block, "2"}, {Block, "002"}, {Block, "+2"},
		{Block, "0A"}, {Block, "02.8"}, {Block, "02."}, {Block, "02.01"}, {Block, "02.-"}, {Block, "02/20"}, {Block, "20"}, {Block, "20.0/01"}, {Block, "02 "}, {Block, "02\x00"},
		{Block, "*"}, {Block, "0?"}, {Block, "[0]"}, {Block, strings.Repeat("02/", maxBridges) + "02"}, {Block, strings.Repeat("00/", 1<<20)},
		{Block, "/dev/../etc/x"}, {Block, "/dev/mapper/root"}, {Block, "/dev/vda1"}, {Block, "/dev/loop0"}, {Block, "/dev/vd*"}, {Block, "/dev/pmem0"}, {Block, "/dev/dm-0"},
		{BlockMem, "02"}, {BlockMem, "/dev/sda"}, {BlockMem, "vda"}, {NVDIMM, "/dev/vda"}, {NVDIMM, "pmem0"},
		{BlockCCW, "0.0.1"}, {BlockCCW, "0.0.000g"}, {BlockCCW, "0.4.0001"}, {BlockCCW, "0.0.0001/.."}, {BlockCCW, "../0001"},
		{SCSI, "0"}, {SCSI, "0:"}, {SCSI, ":0"}, {SCSI, "0:0:0"}, {SCSI, "256:0"}, {SCSI, "0:16384"}, {SCSI, "-1:0"}, {SCSI, "01:0"}, {SCSI, "0:0x1"}, {SCSI, "0:0 "}, {SCSI, "1 2 3:0"},
		{VFIO, "0000:00:02.0"}, {VFIO, ""}, {Net, "eth0"}, {"", "02"}, {"virtio-fs", "02"}, {"blk ", "02"},
	} {
		if err := Check(tt.driver, tt.address); !errors.Is(err, ErrAddress) || len(err.Error()) > 400 {
			t.Errorf("%s %.80q: got %v", tt.driver, tt.address, err)
		}
	}
}

func TestParseFunction(t *testing.T) {
	if got, err := ParseFunction("ffff:3b:1f.7"); err != nil || got != "ffff:3b:1f.7" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{"", "00:02.0", "0000:00:20.0", "0000:00:02.8", "0000:00:02", "0000:00:02.0 ", "0000:00:02.0,x", "0000:AB:02.0", "00000:00:02.0"} {
		if got, err := ParseFunction(text); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

// FuzzPCIPath: what is taken is written as it was read, and stays below the root bus.
func FuzzPCIPath(f *testing.F) {
	for _, s := range []string{"02", "02/0a", "1f.7", "20/00/02", "02/../..", "0?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePCIPath(text)
		if err != nil {
			if !errors.Is(err, ErrAddress) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		var parts []string
		if p.root != 0 {
			parts = append(parts, fmt.Sprintf("%02x", p.root))
		}
		for i, s := range p.slots {
			if s.device > 0x1f || s.function > 7 {
				t.Errorf("%q: slot %v", text, s)
			}
			given := strings.Split(text, "/")[len(parts)]
			part := s.String()
			if !strings.Contains(given, ".") {
				part = strings.TrimSuffix(part, ".0")
			}
			if part != given {
				t.Errorf("%q: part %d is %q", text, i, part)
			}
			parts = append(parts, part)
		}
		if strings.Join(parts, "/") != text {
			t.Errorf("%q became %q", text, parts)
		}
		dir, err := pciPlace{p, "block", []string{"virtio*/block/*"}}.find("/nowhere/sys")
		if dir != "" || err == nil || !filepath.IsLocal(strings.Join(parts, "/")) {
			t.Errorf("%q: found %q, %v", text, dir, err)
		}
	})
}
