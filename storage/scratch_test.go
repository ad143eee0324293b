// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/storage/devmapper"
)

// TestScratchTables pins what scratch is made of: no journal, no header, every key and name.
func TestScratchTables(t *testing.T) {
	m := newMapper(t)
	path := filepath.Join(t.TempDir(), "disk")
	disk := openDisk(t, path, 4<<20)
	if _, err := disk.WriteAt(bytes.Repeat([]byte{0xee}, 8192), 0); err != nil {
		t.Fatal(err)
	}
	s, err := openScratch(t.Context(), m, ScratchConfig{Name: "scratch", Device: "/dev/vdb", Cipher: devmapper.AESXTSHMACSHA256}, disk)
	if err != nil {
		t.Fatal(err)
	}
	tags := devmapper.Integrity{LengthSectors: 8, Device: "/dev/vdb", BlockSize: 4096, TagSize: 32}
	full := tags
	full.LengthSectors = 2048
	crypt, ok := m.tables[2].(devmapper.Crypt)
	if !ok || !reflect.DeepEqual(m.tables[:2], []devmapper.Target{tags, full}) {
		t.Fatalf("tables %+v", m.tables)
	}
	if len(crypt.Key) != 96 || len(bytes.Trim(crypt.Key, "\x00")) == 0 {
		t.Error("the volume key is not a key")
	}
	crypt.Key = nil
	want := devmapper.Crypt{LengthSectors: 2048, Cipher: devmapper.AESXTSHMACSHA256, Device: filepath.Join(m.dir, "scratch_dif"), SectorSize: 4096, NoWorkqueues: true}
	if !reflect.DeepEqual(crypt, want) {
		t.Errorf("got %+v, want %+v", crypt, want)
	}
	if id, ok := strings.CutPrefix(m.uuids[2], "CRYPT-LUKS2-"); !ok || len(id) != 32+len("-scratch") || m.uuids[1] != "CRYPT-INTEGRITY-scratch_dif" {
		t.Errorf("UUIDs %q", m.uuids)
	}
	if s.Size != 2048*512 || s.Path != filepath.Join(m.dir, "scratch") {
		t.Errorf("got %+v", s)
	}
	m.checkKeys(t)
	raw, err := os.ReadFile(path)
	if err != nil || len(bytes.Trim(raw[:4096], "\x00")) > 0 || raw[4096] != 0xee {
		t.Errorf("only the superblock's place is to be cleared: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	m.checkClean(t)
	if want := "create scratch_dif,remove scratch_dif,create scratch_dif,create scratch,remove scratch,remove scratch_dif"; strings.Join(m.log, ",") != want {
		t.Errorf("got %s", strings.Join(m.log, ","))
	}
}

// TestScratchRefuses: one named error, nothing mapped, no key left.
func TestScratchRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cipher *devmapper.Cipher
		status string
		failAt int
		start  string
		size   int64
		want   string
	}{
		{name: "cipher without tags", cipher: new(devmapper.AESXTS), want: errNoTags.Error()},
		{name: "no cipher", cipher: new(devmapper.Cipher), want: errNoTags.Error()},
		{name: "somebody's volume", start: "LUKS\xba\xbe\x00\x02", want: "LUKS header"},
		{name: "device that ends at once", size: 512, want: "512 bytes of 4096"},
		{name: "first mapping fails", failAt: 1, want: "formatting tags"},
		{name: "tags fail", failAt: 2, want: "mapping the tags"},
		{name: "encryption fails", failAt: 3, want: "mapping the encryption capi:authenc(hmac(sha256),xts(aes))-plain64"},
		{name: "status without numbers", status: "0", want: "two numbers"},
		{name: "status without a number", status: "0 x -", want: "invalid syntax"},
		{name: "no room", status: "0 0 -", want: "0 sectors"},
		{name: "more room than device", status: "0 8192 -", want: "8192 sectors of data in 8192"},
		{name: "room off the block size", status: "0 2047 -", want: "2047 sectors"},
		{name: "negative room", status: "0 -8 -", want: "invalid syntax"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMapper(t)
			m.failAt = tt.failAt
			if tt.status != "" {
				m.status = tt.status
			}
			c := ScratchConfig{Name: "scratch", Device: "/dev/vdb", Cipher: devmapper.AESXTSHMACSHA256}
			if tt.cipher != nil {
				c.Cipher = *tt.cipher
			}
			disk := openDisk(t, filepath.Join(t.TempDir(), "disk"), cmp.Or(tt.size, 4<<20))
			if _, err := disk.WriteAt([]byte(tt.start), 0); err != nil {
				t.Fatal(err)
			}
			_, err := openScratch(t.Context(), m, c, disk)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			m.checkClean(t)
		})
	}
}

// TestScratchStopsWithItsContext before it maps anything.
func TestScratchStopsWithItsContext(t *testing.T) {
	m := newMapper(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	disk := openDisk(t, filepath.Join(t.TempDir(), "disk"), 4<<20)
	c := ScratchConfig{Name: "scratch", Device: "/dev/vdb", Cipher: devmapper.AEGIS128}
	if _, err := openScratch(ctx, m, c, disk); !errors.Is(err, context.Canceled) || m.creates > 0 {
		t.Errorf("got %v after %d mappings", err, m.creates)
	}
}

// TestOpenScratchWantsABlockDevice: a path that names a file is not overwritten.
func TestOpenScratchWantsABlockDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{path, "/dev/null", t.TempDir(), "/no/such/device"} {
		if _, err := OpenScratch(t.Context(), newMapper(t), ScratchConfig{Name: "s", Device: device, Cipher: devmapper.AESXTSHMACSHA256}); err == nil {
			t.Errorf("%s: no error", device)
		}
	}
	if b, err := os.ReadFile(path); err != nil || bytes.IndexByte(b, 0) >= 0 {
		t.Errorf("the file was written to: %v", err)
	}
}
