// SPDX-License-Identifier: Apache-2.0

// Inguest is the half of the benchmarks of disks that runs inside a test guest, as root, with two disks and Debian's
// cryptsetup, mkfs.ext4 and e2fsck beside it. Each figure is a line NAME OURS PEER, in seconds.
//
//	inguest open DEVICE RUNS         scratch with ext4, mounted
//	inguest fill DEVICE              scratch filled to its last block, unmounted, checked; prints the MiB that fit
//	inguest throughput DEVICE RUNS   writing and reading through the tables
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

const (
	point    = "/run/bench"
	ourName  = "bench-ours"
	peerName = "bench-peer"
	keyFile  = "/run/bench-key"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "inguest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("want open, fill or throughput and a device")
	}
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	defer control.Close()
	if err := errors.Join(os.MkdirAll(point, 0o700), os.WriteFile(keyFile, make([]byte, 32), 0o600)); err != nil {
		return err
	}
	b := bench{control: control, device: args[1]}
	if args[0] == "fill" {
		return b.fill(ctx)
	}
	if len(args) != 3 {
		return errors.New("want the number of runs")
	}
	runs, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for range runs {
		// The peer leaves a LUKS header, which scratch would not take the place of.
		if err := b.blank(); err != nil {
			return err
		}
		switch args[0] {
		case "open":
			err = b.open(ctx)
		case "throughput":
			err = b.throughput(ctx)
		default:
			err = fmt.Errorf("unknown benchmark %q", args[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type bench struct {
	control *devmapper.Control
	device  string
}

// blank zeroes the start of the device.
func (b bench) blank() error {
	f, err := os.OpenFile(b.device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 32<<20))
	return errors.Join(err, f.Sync(), f.Close())
}

func (b bench) scratch(cipher devmapper.Cipher) storage.ScratchConfig {
	return storage.ScratchConfig{Name: ourName, Device: b.device, Cipher: cipher}
}

// open times both ways to an ext4 that can be written to.
func (b bench) open(ctx context.Context) error {
	took := map[devmapper.Cipher]time.Duration{}
	for _, cipher := range []devmapper.Cipher{devmapper.AESXTSHMACSHA256, devmapper.AEGIS128} {
		start := time.Now()
		ours, err := storage.MountScratch(ctx, b.control, b.scratch(cipher), scratchFS{}, point)
		if err != nil {
			return err
		}
		took[cipher] = time.Since(start)
		if err := ours.Close(); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := b.openPeer(); err != nil {
		return err
	}
	mapped := "/dev/mapper/" + peerName
	if err := peerFS(mapped); err != nil {
		return err
	}
	if err := unix.Mount(mapped, point, "ext4", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	peer := time.Since(start)
	if err := unix.Unmount(point, 0); err != nil {
		return err
	}
	_, err := fmt.Printf("hmac %.3f %.3f\naegis %.3f %.3f\n", took[devmapper.AESXTSHMACSHA256].Seconds(), peer.Seconds(), took[devmapper.AEGIS128].Seconds(), peer.Seconds())
	return errors.Join(err, cryptsetup("close", peerName))
}

// openPeer is what guest-components runs, with the cheapest derivation that cryptsetup knows.
func (b bench) openPeer() error {
	return errors.Join(
		cryptsetup("luksFormat", "--type", "luks2", "--cipher", "aes-xts-plain64", "--sector-size", "4096", "--integrity", "hmac-sha256",
			"--integrity-no-wipe", "--integrity-no-journal", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", b.device, keyFile),
		cryptsetup("open", "--key-file", keyFile, b.device, peerName),
	)
}

// backups finds the blocks of the backup superblocks in what mkfs.ext4 -n prints.
var backups = regexp.MustCompile(`(?s)Superblock backups stored on blocks: \n(.*)\n\n`)

// peerFS makes the peer's file system as guest-components does: mkfs.ext4 reads superblocks before it writes them, which
// nobody has written yet, so their blocks are found by a run that writes nothing and zeroed.
func peerFS(mapped string) error {
	out, err := exec.Command("/usr/sbin/mkfs.ext4", "-F", "-n", mapped).Output()
	if err != nil {
		return fmt.Errorf("mkfs.ext4 -n: %w", err)
	}
	found := backups.FindSubmatch(append(out, '\n', '\n'))
	if found == nil {
		return fmt.Errorf("mkfs.ext4 -n names no superblocks: %s", out)
	}
	f, err := os.OpenFile(mapped, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, word := range append(strings.FieldsFunc(string(found[1]), func(r rune) bool { return r < '0' || r > '9' }), "0") {
		n, err := strconv.ParseInt(word, 10, 64)
		if err == nil {
			_, err = f.WriteAt(make([]byte, 4096), n*4096)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return program("/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", mapped)
}

func cryptsetup(args ...string) error {
	return program("/usr/sbin/cryptsetup", append([]string{"--batch-mode", "--disable-locks"}, args...)...)
}

// program runs one of the peers.
func program(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"DM_DISABLE_UDEV=1", "PATH=/usr/sbin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}
