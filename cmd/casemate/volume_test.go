// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/luks"
)

func TestVolumeUsage(t *testing.T) {
	for _, args := range []string{"", "format", "create", "open data", "create data /dev/vdb extra", "close", "close a b c", "open --format data /dev/vdb"} {
		if err := runVolume(t.Context(), strings.Fields(args)); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

// TestVolumeConfig: what measured configuration says arrives whole, and nothing else can be opened.
func TestVolumeConfig(t *testing.T) {
	m := config.Measured{Volumes: map[string]config.Volume{
		"data": {Key: "kbs:///a/b/c", Type: "luks2", Cipher: "aegis128-random", Integrity: "aead", SectorSize: new(4096), Offset: new(int64(1 << 20)), OwnHeader: new(true)},
		"old":  {Key: "file:///run/casemate/keys/k", Type: "luks1", Cipher: "aes-xts-plain64", Integrity: "none", SectorSize: new(512), Offset: new(int64(0)), Size: 0, Header: "/h", OwnHeader: new(false)},
	}}
	for name, want := range map[string]storage.VolumeConfig{
		"data": {Name: "data", Key: "kbs:///a/b/c", Expect: luks.Expect{OwnHeader: true, Layout: luks.Layout{
			Type: luks.TypeLUKS2, Cipher: luks.CipherAEGIS128, Integrity: luks.IntegrityAEAD, SectorSize: 4096, Offset: 1 << 20}}},
		"old": {Name: "old", Key: "file:///run/casemate/keys/k", Header: "/h", Expect: luks.Expect{Layout: luks.Layout{
			Type: luks.TypeLUKS1, Cipher: luks.CipherAESXTS, Integrity: luks.IntegrityNone, SectorSize: 512}}},
	} {
		if got, err := volumeConfig(m, name); err != nil || got != want {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
	if _, err := volumeConfig(m, "other"); err == nil {
		t.Error("a volume that is not configured: no error")
	}
}

// TestVolumeKeys: files of other places and a relying party that is not configured give no key.
func TestVolumeKeys(t *testing.T) {
	keys, err := testMachine(config.Measured{}).volumeKeys()
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{
		"sealed.a.b.c": "secret", "file:///etc/passwd": "want file:///run/casemate/keys/NAME", "file:///run/casemate/keys/../../../etc/passwd": "want file:///run/casemate/keys/NAME",
		"kbs:///a/b/c": "no KBS is configured",
	} {
		if _, err := keys.Key(t.Context(), uri); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", uri, err)
		}
	}
}

// TestVolumeProgress: one line a percent, and none left at the end.
func TestVolumeProgress(t *testing.T) {
	var screen strings.Builder
	var written int64
	f := watched{storage.Zeros{}, drawFormat(&screen)}
	if err := f.Format(writerAt(func(b []byte, at int64) { written += int64(len(b)) }), 12<<20); err != nil || written != 12<<20 {
		t.Fatalf("%d bytes, %v", written, err)
	}
	if got, want := screen.String(), "\r\x1b[Kcasemate:  33%  4 of 12 MB\r\x1b[Kcasemate:  66%  8 of 12 MB\r\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type writerAt func(b []byte, at int64)

func (w writerAt) WriteAt(b []byte, at int64) (int, error) {
	w(b, at)
	return len(b), nil
}
