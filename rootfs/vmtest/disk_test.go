// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"crypto/aes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"github.com/casemate/casemate/rootfs/vmtest/remote"
	"github.com/casemate/casemate/storage/luks"
)

const (
	diskPassphrase = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	diskWorkload   = "disk-workload"
	diskMark       = "greetings from the disk"
	// diskImageSize is that of the ext4 in the disk, in bytes.
	diskImageSize = 16 << 20
)

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// rootTree is what buildah puts into the encrypted file system: the image's tree and its config.
func rootTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`{"created":"2026-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Env":["WHO=disk"],"Entrypoint":["/bin/sh","-c"],"Cmd":[%q],"WorkingDir":"/tmp"},"rootfs":{"type":"","diff_ids":null}}`,
		"echo greetings from the $WHO; pwd; echo x > file; cat file; exit 3")
	if err := os.WriteFile(filepath.Join(dir, ".krun_config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// krunDisk lays a disk out as `buildah mkcw` does, with other people's tools where there are some: the ext4 is
// mke2fs's, the LUKS1 header cryptsetup's. An ID or address that is changed is the host's work.
func krunDisk(t *testing.T, workload, address string) string {
	t.Helper()
	dir := t.TempDir()
	image, disk, key := filepath.Join(dir, "ext4"), filepath.Join(dir, "disk.img"), filepath.Join(dir, "key")
	run(t, "mkfs.ext4", "-q", "-F", "-d", rootTree(t), image, fmt.Sprint(diskImageSize>>10)+"K")
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{key: []byte(diskPassphrase), disk: nil} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trailer := fmt.Sprintf(`{"tee":"snp","tee_data":"{\"gen\":\"milan\"}","workload_id":%q,"cpus":2,"ram_mib":512,"attestation_url":%q}`, workload, address)
	end := binary.LittleEndian.AppendUint64([]byte(trailer+"KRUN"), uint64(len(trailer)))
	size := int64(luks.LUKS1Offset+len(content)+len(end)+4095) &^ 4095
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	run(t, "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1", "--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256",
		"--pbkdf-force-iterations", "1000", "--offset", fmt.Sprint(luks.LUKS1Offset/512), disk, key)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := luks.Open(t.Context(), f, []byte(diskPassphrase), luks.Expect{Layout: luks.Layout{Type: luks.TypeLUKS1, Cipher: luks.CipherAESXTS, SectorSize: 512, Offset: luks.LUKS1Offset}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	cipher, err := xts.NewCipher(aes.NewCipher, v.Key)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(content); at += 512 {
		cipher.Encrypt(content[at:at+512], content[at:at+512], uint64(at/512))
	}
	if _, err := f.WriteAt(content, luks.LUKS1Offset); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(end, size-int64(len(end))); err != nil {
		t.Fatal(err)
	}
	return disk
}

// verityConfig is the measured configuration of a disk in casemate's form.
const verityConfig = "/tests/verity.toml"

// builtDisk is a disk of casemate-build, with the same root as krunDisk's.
func builtDisk(t *testing.T, ctx context.Context, form, address string) (disk, pin string) {
	t.Helper()
	dir := t.TempDir()
	program, key, disk := filepath.Join(dir, "casemate-build"), filepath.Join(dir, "key"), filepath.Join(dir, "disk.img")
	if err := Build(ctx, Program{Package: "./cmd/casemate-build"}, program); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte(diskPassphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, program, "disk", "--form", form, "--workload-id", diskWorkload, "--attestation-url", address,
		"--passphrase-file", key, "--json", rootTree(t), disk).Output()
	if err != nil {
		t.Fatalf("casemate-build disk: %v: %s", err, out)
	}
	var result struct{ Verity string }
	if err := json.Unmarshal(out, &result); err != nil || (result.Verity != "") != (form == "verity") {
		t.Fatalf("casemate-build disk: %v: %s", err, out)
	}
	return disk, result.Verity
}

// changedDisk is a copy of a disk with a bit of each block behind the header changed.
func changedDisk(t *testing.T, disk string) string {
	t.Helper()
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for i := luks.DefaultOffset; i < len(b)-8192; i += 4096 {
		b[i+100] ^= 4
	}
	changed := filepath.Join(t.TempDir(), "changed.img")
	if err := os.WriteFile(changed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return changed
}

// TestVMDisk: a disk of buildah mkcw is unlocked by a key of the relying party and its program runs, with its own
// config, as do both forms of casemate-build disk, of which the one with a hash tree runs unchanged or not at all; a disk that claims something else is refused before the key is asked for. What the program leaves on the disk
// is encrypted, and nothing stays mapped.
func TestVMDisk(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	broker := startBroker(t)
	broker.Put("pod/disk/key", []byte(diskPassphrase))
	_, port, _ := strings.Cut(strings.TrimPrefix(broker.URL, "http://"), ":")
	address := "http://" + gateway + ":" + port
	disks := []string{krunDisk(t, diskWorkload, address), krunDisk(t, "another", address), krunDisk(t, diskWorkload, "http://192.0.2.1:8000")}
	ours, _ := builtDisk(t, ctx, "mkcw", address)
	sealed, pin := builtDisk(t, ctx, "verity", address)
	disks = append(disks, ours, sealed, changedDisk(t, sealed))
	files := append(podFiles(t, busyboxImage(t), tenantPolicy(), "registry.example"),
		File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755}, File{Path: "/tests/casemate", HostPath: img.init, Perm: 0o755})
	for i, f := range files {
		if f.Path == "/etc/casemate/casemate.toml" {
			files[i].Text += fmt.Sprintf("\n[kbs]\nurl = %q\nplain_http = true\n\n[disk]\nworkload_id = %q\nkey = \"kbs:///pod/disk/key\"\n", address, diskWorkload)
			files = append(files, File{Path: verityConfig, Text: files[i].Text + fmt.Sprintf("verity = %q\n", pin), Perm: 0o600})
		}
	}
	vm := bootWith(t, ctx, Config{Disks: disks, MAC: cardMAC, MemoryMiB: 384}, files...)
	if _, err := vm.Console.Expect(ctx, "casemate: open: "); err != nil {
		t.Fatal(err)
	}
	inVM := func(args ...string) (int, string) {
		t.Helper()
		var out bytes.Buffer
		code, err := vm.Run(ctx, remote.Request{Run: args[0], Args: args[1:], Seconds: 120}, &out)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return code, out.String()
	}
	for _, args := range []string{"link set lo up", "link set eth0 up", "addr add 10.0.2.15/24 dev eth0"} {
		if code, out := inVM(append([]string{"busybox", "ip"}, strings.Fields(args)...)...); code != 0 {
			t.Fatalf("ip %s: %s", args, out)
		}
	}
	check(t, "disk/run", func(t *testing.T) { runsDisk(t, inVM, "/dev/vda") })
	check(t, "disk/built", func(t *testing.T) { runsDisk(t, inVM, "/dev/vdd") })
	check(t, "disk/verity", func(t *testing.T) {
		runsDisk(t, inVM, "--config", verityConfig, "/dev/vde")
		for name, args := range map[string][]string{
			"blocks that were changed":              {"--config", verityConfig, "/dev/vdf"},
			"buildah's form where ours is measured": {"--config", verityConfig, "/dev/vdd"},
			"our form where buildah's is measured":  {"/dev/vde"},
		} {
			if code, out := inVM(append([]string{"casemate", "disk", "run"}, args...)...); code != 1 || strings.Contains(out, diskMark) {
				t.Errorf("%s: exit code %d: %s", name, code, out)
			}
		}
		if _, out := inVM("busybox", "ls", "/dev/mapper"); strings.Contains(out, "disk") {
			t.Errorf("still mapped: %s", out)
		}
	})
	check(t, "disk/claims", func(t *testing.T) {
		before := broker.Count("GET resource/pod/disk/key")
		for disk, want := range map[string]string{"/dev/vdb": "workload id", "/dev/vdc": "attestation address"} {
			if code, out := inVM("casemate", "disk", "run", disk); code != 1 || !strings.Contains(out, want) {
				t.Errorf("%s: exit code %d, %s", disk, code, out)
			}
		}
		if after := broker.Count("GET resource/pod/disk/key"); before == 0 || after != before {
			t.Errorf("the key was asked for %d times, and %d times more", before, after-before)
		}
	})
	check(t, "disk/sealed", func(t *testing.T) {
		raw, err := os.ReadFile(disks[0])
		if err != nil || bytes.Contains(raw, []byte(diskMark)) || bytes.Contains(raw, []byte("BusyBox v")) {
			t.Errorf("plaintext on the disk, %v", err)
		}
	})
}

// runsDisk runs the disk twice: it is closed in between.
func runsDisk(t *testing.T, inVM func(...string) (int, string), args ...string) {
	for range 2 {
		code, out := inVM(append([]string{"casemate", "disk", "run"}, args...)...)
		if code != 3 || !strings.Contains(out, diskMark+"\n/tmp\nx\n") {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	if _, out := inVM("busybox", "ls", "/dev/mapper"); strings.Contains(out, "disk") {
		t.Errorf("still mapped: %s", out)
	}
}
