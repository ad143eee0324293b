// SPDX-License-Identifier: Apache-2.0

//go:build vm && sample

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/storage"
)

// replayFile is a measured configuration with the volume data, whose counter and key a relying party has.
func replayFile(t *testing.T, broker *kbstest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "casemate.toml")
	text := fmt.Sprintf(`tee = "sample"
[kbs]
url = %q
cert = %q
[volume.data]
key = "kbs:///pod/volume/data"
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = 1048576
own_header = true
fs = "none"
replay = "kbs"
`, broker.URL, broker.Cert)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// image reads a whole disk, or puts one back as a host does.
func image(t *testing.T, disk string, put []byte) []byte {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if put != nil {
		_, err = f.WriteAt(put, 0)
	} else {
		var size int64
		if size, err = f.Seek(0, 2); err == nil {
			put = make([]byte, size)
			_, err = f.ReadAt(put, 0)
		}
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return put
}

// TestVMVolumeReplay: an older image of a whole disk, integrity and header valid, is refused with both numbers, until
// the owner says otherwise; a volume that nobody has closed properly opens again.
func TestVMVolumeReplay(t *testing.T) {
	const disk = "/dev/vda"
	if err := loopback(); err != nil {
		t.Fatal(err)
	}
	broker := kbstest.StartTLS()
	defer broker.Close()
	broker.Put("pod/volume/data", bytes.Repeat([]byte("k"), 32))
	file := replayFile(t, broker)
	blankWithKey(t, disk)
	verb := func(args ...string) error {
		_, err := volume(t, append([]string{args[0], "--config", file, "data"}, args[1:]...)...)
		return err
	}
	session := func(content string, closing ...string) {
		t.Helper()
		if err := verb("open", disk); err != nil {
			t.Fatal(err)
		}
		if content != "" {
			if _, err := block("/dev/mapper/data", bytes.Repeat([]byte(content), 4096)); err != nil {
				t.Error(err)
			}
		}
		if err := verb(append([]string{"close"}, closing...)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := verb("create", disk); err != nil { // generation 1
		t.Fatal(err)
	}
	session("1", disk) // 2 and 3
	old := image(t, disk, nil)
	session("2") // 4, and nobody raised it behind closing
	crashed := image(t, disk, nil)
	session("3", disk) // 5 and 6
	newest := image(t, disk, nil)
	for _, c := range []struct {
		image []byte
		disk  uint64
	}{{old, 3}, {crashed, 4}} {
		image(t, disk, c.image)
		err := verb("open", disk)
		if e, ok := errors.AsType[*storage.ErrOldImage](err); !ok || *e != (storage.ErrOldImage{Disk: c.disk, Last: 6}) {
			t.Errorf("an image of generation %d: %v", c.disk, err)
		}
		if _, err := volume(t, "close", "data"); !errors.Is(err, unix.ENXIO) {
			t.Errorf("something stayed mapped: %v", err)
		}
	}
	image(t, disk, newest)
	session("", disk)
	now, err := evidence.ParseCounter(broker.Get("counter/data"))
	if err != nil || now.Number != 8 {
		t.Fatalf("the counter is %+v, %v", now, err)
	}
	// The owner has put a backup back on purpose.
	image(t, disk, old)
	broker.Put("counter/data", evidence.Counter{Generation: now.Generation, Reset: true}.Encode())
	if err := verb("open", disk); err != nil {
		t.Fatal(err)
	}
	if got, err := block("/dev/mapper/data", nil); err != nil || got[0] != '1' {
		t.Errorf("the backup's content is %q, %v", got[:1], err)
	}
	if err := verb("close", disk); err != nil {
		t.Error(err)
	}
	image(t, disk, newest)
	if _, ok := errors.AsType[*storage.ErrOldImage](verb("open", disk)); !ok {
		t.Error("both images open")
	}
}

// loopback brings the guest's own interface up, which in a pod the host asks for.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
