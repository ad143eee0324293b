// SPDX-License-Identifier: Apache-2.0

//go:build interop

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/sbin/" + name); err != nil {
			t.Fatalf("%v (`make setup` installs it)", err)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// TestRootTools: erofs-utils finds nothing wrong with the root, and veritysetup
// accepts it with its tree and the pin's values.
func TestRootTools(t *testing.T) {
	b := build(t, twice(t)[0])
	tool(t, "fsck.erofs", b.root.Name())
	if out := tool(t, "dump.erofs", "--path=/usr/bin/kata-agent", b.root.Name()); !strings.Contains(out, "Access: 0755") {
		t.Errorf("dump.erofs says %s", out)
	}
	tool(t, "veritysetup", "verify", b.root.Name(), b.hash.Name(), fmt.Sprintf("%x", b.pin.RootHash), "--no-superblock",
		"--salt", fmt.Sprintf("%x", b.pin.Salt), "--data-blocks", fmt.Sprint(b.pin.DataBlocks))
}

// TestExt4RootTools: e2fsck finds nothing wrong with the other form of the root, and debugfs
// the agent in it.
func TestExt4RootTools(t *testing.T) {
	b := buildAs(t, Ext4, twice(t)[0])
	tool(t, "e2fsck", "-fn", b.root.Name())
	if out := tool(t, "debugfs", "-R", "stat /usr/bin/kata-agent", b.root.Name()); !strings.Contains(out, "Mode:  0755") {
		t.Errorf("debugfs says %s", out)
	}
}

// TestDiskTools: sfdisk finds two partitions and nothing to complain about.
func TestDiskTools(t *testing.T) {
	b := build(t, twice(t)[0])
	for table, want := range map[Table][]string{
		MSDOS: {"label: dos", fmt.Sprintf("label-id: 0x%02x%02x%02x%02x", b.pin.RootHash[3], b.pin.RootHash[2], b.pin.RootHash[1], b.pin.RootHash[0]), "type=83"},
		GPT: {"label: gpt", "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", `name="root-verity"`,
			fmt.Sprintf("uuid=%X-%X-", b.pin.RootHash[:4], b.pin.RootHash[4:6])},
	} {
		disk := b.disk(t, table).Name()
		dump := tool(t, "sfdisk", "--dump", disk)
		for _, want := range want {
			if !strings.Contains(dump, want) {
				t.Errorf("%s: no %q in %s", table, want, dump)
			}
		}
		if out := tool(t, "sfdisk", "--verify", disk); !strings.Contains(out, "No errors detected") {
			t.Errorf("%s: %s", table, out)
		}
	}
}

// systemdStub is the EFI stub of Debian's systemd-boot-efi.
func systemdStub(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	return b
}

// TestUKITools: objcopy takes out of the image what went in, and adds the same
// sections to the same stub with the same content.
func TestUKITools(t *testing.T) {
	u := ukiParts()
	u.Stub = systemdStub(t)
	image, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "uki.efi")
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{".osrel": []byte(u.OSRel), ".cmdline": []byte(u.CmdLine), ".initrd": u.Initrd, ".linux": u.Kernel} {
		out := filepath.Join(dir, name[1:])
		tool(t, "objcopy", "--dump-section", name+"="+out, path, filepath.Join(dir, "copy.efi"))
		if got, err := os.ReadFile(out); err != nil || !bytes.HasPrefix(got, want) || len(bytes.TrimRight(got[len(want):], "\x00")) > 0 {
			t.Errorf("%s: %d bytes, want %d (%v)", name, len(got), len(want), err)
		}
	}
	// objcopy writes the file again, with the sum as it counts it.
	again := filepath.Join(dir, "again.efi")
	tool(t, "objcopy", path, again)
	b, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	at := int(binary.LittleEndian.Uint32(b[dosPEOffset:])) + optCheckSum
	theirs := binary.LittleEndian.Uint32(b[at:])
	binary.LittleEndian.PutUint32(b[at:], 0)
	if ours := checkSum(b); ours != theirs {
		t.Errorf("sum %#x, objcopy says %#x", ours, theirs)
	}
}
