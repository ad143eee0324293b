// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// emptyDir is what kata's agent sends for an encrypted emptyDir, and trusted what it sends for the image store.
func emptyDir() map[string]string {
	return map[string]string{
		"deviceId": "254:16", "sourceType": "empty", "targetType": "fileSystem", "filesystemType": "ext4", "encryptionType": "luks2",
		"mkfsOpts": "-O ^has_journal -m 0 -i 163840 -I 128", "dataIntegrity": "true",
	}
}

func encrypted() map[string]string {
	return map[string]string{"devicePath": "/dev/vdb", "sourceType": "encrypted", "targetType": "device", "encryptionType": "luks2", "key": "kbs:///a/b/c"}
}

func TestParseSecureMount(t *testing.T) {
	store := emptyDir()
	store["mkfsOpts"] = "-E lazy_journal_init"
	sealed := encrypted()
	sealed["key"], sealed["targetType"], sealed["mapperName"] = "sealed.a.b.c", "fileSystem", "my.data-1"
	for name, tt := range map[string]struct {
		options map[string]string
		want    SecureMount
	}{
		"emptyDir of kata":    {emptyDir(), SecureMount{DeviceID: "254:16", FileSystem: true, MkfsOpts: "-O ^has_journal -m 0 -i 163840 -I 128"}},
		"image store of kata": {store, SecureMount{DeviceID: "254:16", FileSystem: true, MkfsOpts: "-E lazy_journal_init"}},
		"existing volume":     {encrypted(), SecureMount{DevicePath: "/dev/vdb", Encrypted: true, Key: "kbs:///a/b/c"}},
		"sealed key":          {sealed, SecureMount{DevicePath: "/dev/vdb", Encrypted: true, Key: "sealed.a.b.c", FileSystem: true, Name: "my.data-1"}},
	} {
		tt.want.MountPoint = "/run/m"
		if got, err := ParseSecureMount("block-device", tt.options, nil, "/run/m"); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestSecureMountRefuses names the option for everything that is not obeyed to the letter.
func TestSecureMountRefuses(t *testing.T) {
	const absent = "\x00"
	for _, tt := range []struct {
		name, option, value string // option "" changes nothing
		from                func() map[string]string
		want                string // the option that is named; by default option
	}{
		{"unknown option", "dataintegrity", "true", emptyDir, ""},
		{"unknown option with an empty value", "cipher", "", emptyDir, ""},
		{"integrity switched off", "dataIntegrity", "false", emptyDir, ""},
		{"integrity in another spelling", "dataIntegrity", "True", emptyDir, ""},
		{"no source", "sourceType", absent, emptyDir, ""},
		{"source of another kind", "sourceType", "Empty", emptyDir, ""},
		{"ZFS", "encryptionType", "zfs", emptyDir, ""},
		{"pool of ZFS", "pool", "zpool", emptyDir, ""},
		{"data set of ZFS", "dataset", "d", emptyDir, ""},
		{"no encryption named", "encryptionType", absent, emptyDir, ""},
		{"no target", "targetType", absent, emptyDir, ""},
		{"another target", "targetType", "filesystem", emptyDir, ""},
		{"another file system", "filesystemType", "xfs", emptyDir, ""},
		{"file system of a device", "filesystemType", "ext4", encrypted, ""},
		{"no device", "deviceId", absent, emptyDir, ""},
		{"two devices", "devicePath", "/dev/vdc", emptyDir, "deviceId"},
		{"device number of a path", "deviceId", "../../x:1", emptyDir, ""},
		{"device number with a zero in front", "deviceId", "08:1", emptyDir, ""},
		{"device by a relative path", "devicePath", "dev/vdb", encrypted, ""},
		{"device by a path that goes up", "devicePath", "/dev/../etc/shadow", encrypted, ""},
		{"device behind a link of a container's", "devicePath", "/run/kata-containers/c/rootfs/disk", encrypted, ""},
		{"device path of zero bytes", "devicePath", "", encrypted, ""},
		{"key of a volume for scratch", "key", "kbs:///a/b/c", emptyDir, ""},
		{"volume without a key", "key", absent, encrypted, ""},
		{"empty key", "key", "", encrypted, ""},
		{"key as it is", "key", "0123456789abcdef", encrypted, ""},
		{"key from the network", "key", "https://host/key", encrypted, ""},
		{"key file by a path that goes up", "key", "file:///run/keys/../../etc/shadow", encrypted, ""},
		{"sealed nothing", "key", "sealed.", encrypted, ""},
		{"long key", "key", "sealed." + strings.Repeat("a", maxOption), encrypted, ""},
		{"mapping with a path in its name", "mapperName", "../control", emptyDir, ""},
		{"mapping like an option", "mapperName", "-f", emptyDir, ""},
		{"mapping with a long name", "mapperName", strings.Repeat("a", maxMapperName+1), emptyDir, ""},
		{"mapping without a name", "mapperName", "", emptyDir, ""},
		{"formatting a volume", "mkfsOpts", "-m 0", encrypted, ""},
	} {
		options := tt.from()
		if options[tt.option] = tt.value; tt.value == absent {
			delete(options, tt.option)
		}
		want := tt.want
		if want == "" {
			want = tt.option
		}
		_, err := ParseSecureMount("block-device", options, nil, "/run/m")
		if o, ok := errors.AsType[*OptionError](err); !ok || o.Name != want {
			t.Errorf("%s: got %v, want option %s refused", tt.name, err, want)
		}
		if tt.option == "key" && len(tt.value) > 7 && strings.Contains(fmt.Sprint(err), tt.value) {
			t.Errorf("%s: the key is in the error", tt.name)
		}
	}
	for name, err := range map[string]error{
		"another type":     parseError("alibaba-cloud-oss", nil, "/run/m"),
		"flags":            parseError("block-device", []string{"ro"}, "/run/m"),
		"relative target":  parseError("block-device", nil, "run/m"),
		"the root":         parseError("block-device", nil, "/"),
		"target goes up":   parseError("block-device", nil, "/run/../etc"),
		"target of a NUL":  parseError("block-device", nil, "/run/\x00"),
		"target not there": parseError("block-device", nil, ""),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func parseError(kind string, flags []string, point string) error {
	_, err := ParseSecureMount(kind, emptyDir(), flags, point)
	return err
}

func FuzzParseSecureMount(f *testing.F) {
	for k, v := range emptyDir() {
		f.Add(k, v, "encrypted")
	}
	f.Add("key", "kbs:///a/b/c", "encrypted")
	f.Fuzz(func(t *testing.T, name, value, source string) {
		options := maps.Clone(emptyDir())
		options["sourceType"] = source
		options[name] = value
		m, err := ParseSecureMount("block-device", options, nil, "/run/m")
		if err == nil && (m.Encrypted != (m.Key != "") || (m.DeviceID == "") == (m.DevicePath == "") || options["dataIntegrity"] != "true") {
			t.Errorf("accepted %+v", m)
		}
	})
}

// TestVolumeOf: a request can only repeat a measured volume, by its key.
func TestVolumeOf(t *testing.T) {
	a := VolumeConfig{Name: "a", Key: "kbs:///a/b/c", Expect: luks.Expect{OwnHeader: true}}
	b := VolumeConfig{Name: "b", Key: "kbs:///a/b/d"}
	m := SecureMount{Encrypted: true, Key: "kbs:///a/b/c"}
	if got, err := m.VolumeOf([]VolumeConfig{b, a}); err != nil || got != a {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, tt := range map[string]struct {
		key      string
		measured []VolumeConfig
	}{
		"none":            {"kbs:///a/b/c", nil},
		"another key":     {"kbs:///a/b/C", []VolumeConfig{a, b}},
		"no key":          {"", []VolumeConfig{a, {Name: "keyless"}}},
		"two of that key": {"kbs:///a/b/c", []VolumeConfig{a, a}},
	} {
		got, err := SecureMount{Encrypted: tt.key != "", Key: tt.key}.VolumeOf(tt.measured)
		if err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// TestDeviceByNumber: the node must be the device that was asked for, whatever its name leads to.
func TestDeviceByNumber(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	uevent := func(id, text string) {
		dir := filepath.Join(sys, "dev/block", id)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "uevent"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(dev, "vdb")); err != nil { // 1:3
		t.Fatal(err)
	}
	uevent("1:3", "MAJOR=1\nMINOR=3\nDEVNAME=vdb\nDEVTYPE=disk\n")
	if got, err := (SecureMount{DeviceID: "1:3"}).device(sys, dev); err != nil || got != filepath.Join(dev, "vdb") {
		t.Errorf("got %s, %v", got, err)
	}
	uevent("254:0", "DEVNAME=vdb\n")
	uevent("254:1", "DEVNAME=../vdb\n")
	uevent("254:2", "DEVNAME=vdc\n")
	uevent("254:3", "DEVTYPE=disk\n")
	for id, want := range map[string]string{"254:0": "is 1:3", "254:1": "name", "254:2": "no such file", "254:3": "no node", "254:4": "no such file"} {
		if got, err := (SecureMount{DeviceID: id}).device(sys, dev); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v, want %q", id, got, err, want)
		}
	}
	if got, err := (SecureMount{DevicePath: "/dev/vdz"}).device(sys, dev); err != nil || got != "/dev/vdz" {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestSecureMountsUndo: steps are undone from the last on, and what is in use stays to be undone later.
func TestSecureMountsUndo(t *testing.T) {
	var log []string
	busy := true
	step := func(name string) func() error {
		return func() error {
			if name == "a2" && busy {
				return unix.EBUSY
			}
			log = append(log, name)
			return nil
		}
	}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.Symlink("x", a), os.Symlink("x", b)); err != nil {
		t.Fatal(err)
	}
	s := SecureMounts{open: []*Mounted{
		{Point: a, closers: []func() error{step("a1"), step("a2")}},
		{Point: b, closers: []func() error{step("b1"), step("b2")}},
	}}
	if err := s.Close("/c"); err == nil {
		t.Error("closing what is not there: no error")
	}
	if err := s.Mount(t.Context(), SecureMount{MountPoint: a}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second mount: got %v", err)
	}
	if err := s.CloseAll(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v", err)
	}
	busy = false
	if err := s.Close(a); err != nil {
		t.Error(err)
	}
	if err := s.CloseAll(); err != nil || strings.Join(log, " ") != "b2 b1 a2 a1" {
		t.Errorf("got %q, %v", log, err)
	}
}

// TestSecureMountsRefuse before a device is touched.
func TestSecureMountsRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte{1}, 0o600); err != nil {
		t.Fatal(err)
	}
	points := t.TempDir()
	s := SecureMounts{Volumes: Volumes{Mapper: newMapper(t), Keys: newSecret()}, Cipher: devmapper.AESXTSHMACSHA256, Below: []string{points}}
	for name, tt := range map[string]struct {
		m  SecureMount
		is error
	}{
		"outside":                       {SecureMount{FileSystem: true, MountPoint: points + "-2/m"}, ErrOutside},
		"the directory itself":          {SecureMount{FileSystem: true, MountPoint: points}, ErrOutside},
		"scratch where none is served":  {SecureMount{FileSystem: true, Name: "unserved"}, ErrNoScratch},
		"volume that is not configured": {SecureMount{Encrypted: true, Key: "kbs:///a/b/c"}, ErrNotMeasured},
		"no maker of file systems":      {SecureMount{FileSystem: true}, errNoMaker},
		"options of mkfs":               {SecureMount{FileSystem: true, MkfsOpts: "-O encrypt"}, nil},
	} {
		if tt.m.MountPoint == "" {
			tt.m.MountPoint = filepath.Join(points, "m")
		}
		tt.m.DevicePath, s.Scratch = path, tt.m.Name != "unserved"
		s.MakeExt4 = nil
		if tt.is == nil {
			s.MakeExt4 = func(opts string) (Formatter, error) { return nil, errors.New(opts + " is not served") }
		}
		err := s.Mount(t.Context(), tt.m)
		if o, ok := errors.AsType[*OptionError](err); tt.is != nil && !errors.Is(err, tt.is) || tt.is == nil && (!ok || o.Name != "mkfsOpts") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, []byte{1}) {
		t.Errorf("the device was written to: %v", err)
	}
}
