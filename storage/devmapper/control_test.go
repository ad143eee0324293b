// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeKernel records requests and answers from a table.
type fakeKernel struct {
	t       *testing.T
	calls   []uintptr
	seen    [][]byte // copies of the requests
	held    [][]byte // the very buffers
	fail    map[uintptr]error
	devices map[string]bool
}

func (k *fakeKernel) ioctl(req uintptr, b []byte) error {
	k.calls = append(k.calls, req)
	k.seen = append(k.seen, slices.Clone(b))
	k.held = append(k.held, b)
	if err := k.fail[req]; err != nil {
		return err
	}
	name, _ := cString(b[offName:])
	switch req {
	case unix.DM_DEV_CREATE:
		if k.devices[name] {
			return unix.EBUSY
		}
		k.devices[name] = true
		binary.NativeEndian.PutUint64(b[offDev:], unix.Mkdev(253, 7))
	case unix.DM_DEV_REMOVE:
		if !k.devices[name] {
			return unix.ENXIO
		}
		delete(k.devices, name)
	}
	return nil
}

func newFake(t *testing.T) (*fakeKernel, *Control) {
	k := &fakeKernel{t: t, fail: map[uintptr]error{}, devices: map[string]bool{}}
	return k, &Control{ioctl: k.ioctl, dir: t.TempDir(), close: func() error { return nil }}
}

func scratch() Mapping {
	return Mapping{Name: "scratch", UUID: "CASEMATE-1", Targets: []Target{
		Crypt{LengthSectors: 64, Cipher: AESXTS, Key: seq(64), Device: "/dev/vdb", SectorSize: 512},
		Linear{LengthSectors: 8, Device: "/dev/vdc"},
	}}
}

// TestIoctlNumbers pins what linux/dm-ioctl.h makes of _IOWR(0xfd, nr, struct dm_ioctl).
func TestIoctlNumbers(t *testing.T) {
	for name, v := range map[string][2]uint64{
		"create":   {unix.DM_DEV_CREATE, 0xc138fd03},
		"remove":   {unix.DM_DEV_REMOVE, 0xc138fd04},
		"suspend":  {unix.DM_DEV_SUSPEND, 0xc138fd06},
		"load":     {unix.DM_TABLE_LOAD, 0xc138fd09},
		"status":   {unix.DM_TABLE_STATUS, 0xc138fd0c},
		"versions": {unix.DM_LIST_VERSIONS, 0xc138fd0d},
		"header":   {headerSize, 312},
		"spec":     {specSize, 40},
		"secure":   {secureData, 1 << 15},
		"readonly": {unix.DM_READONLY_FLAG, 1},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: %#x, want %#x", name, v[0], v[1])
		}
	}
}

// TestRequestBytes compares the structures of one creation with bytes written out by hand (little endian).
func TestRequestBytes(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	k, c := newFake(t)
	c.dir = filepath.Join(c.dir, "missing") // ends the creation behind the resume
	if _, err := c.Create(scratch()); err == nil {
		t.Fatal("a node was made in a missing directory")
	}
	want := []uintptr{unix.DM_DEV_CREATE, unix.DM_TABLE_LOAD, unix.DM_DEV_SUSPEND, unix.DM_DEV_REMOVE}
	if !slices.Equal(k.calls, want) {
		t.Fatalf("calls %#x, want %#x", k.calls, want)
	}
	header := func(flags, targets string, uuid string) string {
		return "04000000" + "00000000" + "00000000" + // version
			"00400000" + "38010000" + targets + "00000000" + flags + "00000000" + "00000000" + // sizes, counts, flags
			"0000000000000000" + // dev
			hex.EncodeToString(append([]byte("scratch"), make([]byte, 121)...)) +
			hex.EncodeToString(append([]byte(uuid), make([]byte, 136-len(uuid))...))
	}
	params := "aes-xts-plain64 " + hex.EncodeToString(seq(64)) + " 0 /dev/vdb 0"
	load := header("00800000", "02000000", "") +
		"0000000000000000" + "4000000000000000" + "00000000" + "c8000000" + hex.EncodeToString([]byte("crypt")) + strings.Repeat("00", 11) +
		hex.EncodeToString([]byte(params)) + strings.Repeat("00", 200-40-len(params)) +
		"4000000000000000" + "0800000000000000" + "00000000" + "38000000" + hex.EncodeToString([]byte("linear")) + strings.Repeat("00", 10) +
		hex.EncodeToString([]byte("/dev/vdc 0")) + strings.Repeat("00", 6)
	for i, want := range []string{header("00000000", "00000000", "CASEMATE-1"), load, header("00000000", "00000000", ""), header("00000000", "00000000", "")} {
		n := len(want) / 2
		if got := hex.EncodeToString(k.seen[i][:n]); got != want {
			t.Errorf("request %d:\n got %s\nwant %s", i, got, want)
		}
		if len(k.seen[i]) != bufferSize || len(bytes.Trim(k.seen[i][n:], "\x00")) > 0 {
			t.Errorf("request %d: more than what was asked for", i)
		}
	}
}

func TestCreate(t *testing.T) {
	k, c := newFake(t)
	if err := os.WriteFile(filepath.Join(c.dir, "scratch"), []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := c.Create(scratch())
	if errors.Is(err, unix.EPERM) {
		t.Skipf("making block nodes is not allowed here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(d.Path, &st); err != nil || st.Mode != unix.S_IFBLK|0o600 || st.Rdev != d.Dev || d.Dev != unix.Mkdev(253, 7) {
		t.Errorf("node %+v, %v", st, err)
	}
	if _, err := c.Create(scratch()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second one of the same name: %v", err)
	}
	if !k.devices["scratch"] {
		t.Error("the failed second creation removed the first device")
	}
	if err := c.Remove("scratch"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(d.Path); err == nil {
		t.Error("the node is still there")
	}
	if err := c.Remove("scratch"); !errors.Is(err, unix.ENXIO) {
		t.Errorf("removing nothing: %v", err)
	}
}

func TestReadOnlyFlag(t *testing.T) {
	k, c := newFake(t)
	c.dir = filepath.Join(c.dir, "missing")
	m := scratch()
	m.ReadOnly = true
	_, _ = c.Create(m)
	if got := binary.NativeEndian.Uint32(k.seen[1][offFlags:]); got != 1<<15|1 {
		t.Errorf("flags %#x", got)
	}
}

// TestKeysAreCleared looks into the very buffers that were given to the kernel.
func TestKeysAreCleared(t *testing.T) {
	key := []byte(hex.EncodeToString(seq(64)))
	for _, fail := range []uintptr{0, unix.DM_TABLE_LOAD, unix.DM_DEV_SUSPEND} {
		k, c := newFake(t)
		k.fail[fail] = unix.EINVAL
		_, _ = c.Create(scratch())
		if !bytes.Contains(k.seen[1], key) {
			t.Fatal("the test does not see the key at all")
		}
		for i, b := range k.held {
			if bytes.Contains(b, key[:16]) {
				t.Errorf("failing %#x: buffer %d still holds the key", fail, i)
			}
		}
	}
}

func TestFailedCreationLeavesNothing(t *testing.T) {
	for _, fail := range []uintptr{unix.DM_DEV_CREATE, unix.DM_TABLE_LOAD, unix.DM_DEV_SUSPEND} {
		k, c := newFake(t)
		k.fail[fail] = unix.EINVAL
		if _, err := c.Create(scratch()); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "scratch") {
			t.Errorf("failing %#x: %v", fail, err)
		}
		if len(k.devices) > 0 {
			t.Errorf("failing %#x: the device is still there", fail)
		}
		if entries, _ := os.ReadDir(c.dir); len(entries) > 0 {
			t.Errorf("failing %#x: the node is still there", fail)
		}
	}
	k, c := newFake(t)
	k.fail[unix.DM_TABLE_LOAD], k.fail[unix.DM_DEV_REMOVE] = unix.EINVAL, unix.EIO
	if _, err := c.Create(scratch()); !errors.Is(err, unix.EINVAL) || !errors.Is(err, unix.EIO) {
		t.Errorf("a failing clean-up is not reported: %v", err)
	}
}

func TestRefusedMappings(t *testing.T) {
	verity := Verity{HashType: 1, DataDevice: "/dev/a", HashDevice: "/dev/a", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 1, Algorithm: "sha256", RootHash: seq(32)}
	linear := []Target{Linear{LengthSectors: 8, Device: "/dev/a"}}
	for name, m := range map[string]Mapping{
		"no name":           {Targets: linear},
		"path as a name":    {Name: "../vda", Targets: linear},
		"control node":      {Name: "control", Targets: linear},
		"long UUID":         {Name: "a", UUID: strings.Repeat("u", 129), Targets: linear},
		"no targets":        {Name: "a"},
		"writable verity":   {Name: "a", Targets: []Target{verity}},
		"nested in a table": {Name: "a", Targets: append(slices.Clone(linear), verity)},
	} {
		k, c := newFake(t)
		if _, err := c.Create(m); err == nil || len(k.calls) > 0 {
			t.Errorf("%s: %v after %d calls", name, err, len(k.calls))
		}
	}
	for name, targets := range map[string][]Target{
		"zero length":     {Linear{Device: "/dev/a"}},
		"wrapping length": {Linear{LengthSectors: 1<<64 - 8, Device: "/dev/a"}, Linear{LengthSectors: 16, Device: "/dev/a"}},
		"bad parameter":   {Linear{LengthSectors: 8, Device: "a"}},
		"full buffer":     slices.Repeat(linear, 1000),
	} {
		k, c := newFake(t)
		if _, err := c.Create(Mapping{Name: "a", Targets: targets}); err == nil || len(k.devices) > 0 {
			t.Errorf("%s: %v, devices %v", name, err, k.devices)
		}
	}
}

// statusReply writes a reply of DM_TABLE_STATUS as the kernel lays it out.
func statusReply(targets ...TargetStatus) []byte {
	e := binary.NativeEndian
	b := request("x", "", 0)
	off := headerSize
	for _, s := range targets {
		e.PutUint64(b[off+offSpecStart:], s.StartSector)
		e.PutUint64(b[off+offSpecLength:], s.LengthSectors)
		copy(b[off+offSpecType:], s.Kind)
		copy(b[off+specSize:], s.Info)
		next := (off - headerSize + specSize + len(s.Info) + 1 + 7) &^ 7
		e.PutUint32(b[off+offSpecNext:], uint32(next))
		e.PutUint32(b[offDataSize:], uint32(off+specSize+len(s.Info)+1)) // without the last padding
		off = headerSize + next
	}
	e.PutUint32(b[offTargetCount:], uint32(len(targets)))
	return b
}

func TestStatus(t *testing.T) {
	k, c := newFake(t)
	want := []TargetStatus{
		{Kind: "integrity", LengthSectors: 100, Info: "0 123456 -"},
		{Kind: "verity", StartSector: 100, LengthSectors: 8, Info: "V"},
	}
	c.ioctl = func(req uintptr, b []byte) error {
		if flags := binary.NativeEndian.Uint32(b[offFlags:]); req != unix.DM_TABLE_STATUS || flags&unix.DM_STATUS_TABLE_FLAG != 0 {
			t.Errorf("request %#x with flags %#x: the table line holds the key", req, flags)
		}
		copy(b, statusReply(want...))
		return nil
	}
	if got, err := c.Status("x"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	c.ioctl = k.ioctl
	k.fail[unix.DM_TABLE_STATUS] = unix.ENXIO
	if _, err := c.Status("x"); !errors.Is(err, unix.ENXIO) {
		t.Errorf("got %v", err)
	}
}

func versionsReply() []byte {
	e := binary.NativeEndian
	b := request("", "", 0)
	d := b[headerSize:]
	e.PutUint32(d[0:], 24)
	e.PutUint32(d[4:], 1)
	e.PutUint32(d[8:], 28)
	copy(d[16:], "crypt")
	copy(d[24+16:], "linear")
	return b
}

func TestVersions(t *testing.T) {
	_, c := newFake(t)
	c.ioctl = func(_ uintptr, b []byte) error { copy(b, versionsReply()); return nil }
	got, err := c.Versions()
	want := []TargetVersion{{"crypt", [3]uint32{1, 28, 0}}, {"linear", [3]uint32{}}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestFullReply(t *testing.T) {
	b := statusReply()
	binary.NativeEndian.PutUint32(b[offFlags:], unix.DM_BUFFER_FULL_FLAG)
	if _, err := parseStatus(b); err == nil {
		t.Error("a cut reply was taken for a whole one")
	}
}

// FuzzReplies: whatever stands in a reply, reading it ends and stays inside.
func FuzzReplies(f *testing.F) {
	f.Add(statusReply(TargetStatus{Kind: "crypt", LengthSectors: 8}, TargetStatus{Kind: "linear", Info: "x"})[:512])
	f.Add(versionsReply()[:512])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > bufferSize {
			return
		}
		status, err := parseStatus(b)
		if err != nil && status != nil {
			t.Error("a list beside an error")
		}
		if versions, err := parseVersions(b); err != nil && versions != nil {
			t.Error("a list beside an error")
		}
	})
}
