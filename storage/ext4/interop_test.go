// SPDX-License-Identifier: Apache-2.0

//go:build interop

package ext4

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fsck runs all passes and fails on anything that they would repair or note.
func fsck(t *testing.T, path string) {
	t.Helper()
	out := tool(t, "e2fsck", "-fn", path)
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "e2fsck 1.") && !strings.HasPrefix(line, "Pass ") && !strings.HasPrefix(line, path+": ") && !strings.HasPrefix(line, "label: ") {
			t.Errorf("e2fsck says %q", line)
		}
	}
}

type interopCase struct {
	size    int64
	options string
}

func interopCases() []interopCase {
	var list []interopCase
	scratch := "-O ^has_journal -m 0 -i 163840 -I 128"
	for _, size := range []int64{
		16 * mib, 16*mib + 4095, 17*mib + 12345*512, 100*mib + 4096, 127 * mib, 128 * mib, 128*mib + 4096, 129 * mib, 130 * mib, 511 * mib, gib,
		3*gib + 77777*512, 10 * gib, 16*gib - 4096, 100 * gib,
	} {
		for _, options := range []string{"", scratch, "-i 4096", "-E lazy_journal_init", "-I 128 -m 50", "-O ^has_journal -i 1048576"} {
			list = append(list, interopCase{size, options})
		}
	}
	return append(list, interopCase{tib, scratch}, interopCase{tib, "-i 1048576"}, interopCase{MaxSize, "-i 4194304"}, interopCase{MaxSize - 4096, scratch})
}

func (c interopCase) make(t *testing.T) (sparse, Layout) {
	t.Helper()
	o, err := ParseOptions(c.options)
	if err != nil {
		t.Fatal(err)
	}
	o.UUID, o.Label, o.Now = [16]byte{0xca, 0x5e, 15: 1}, "label", time.Unix(1700000000, 0)
	f := newSparse(t, c.size)
	layout, err := Format(f, c.size, o)
	if err != nil {
		t.Fatal(err)
	}
	return f, layout
}

func TestInteropE2fsck(t *testing.T) {
	for _, c := range interopCases() {
		t.Run(fmt.Sprintf("%d %s", c.size, c.options), func(t *testing.T) {
			f, _ := c.make(t)
			fsck(t, f.Name())
		})
	}
}

var dumped = regexp.MustCompile(`(?m)^([A-Z][A-Za-z0-9 ]+): +(.*)$`)

func dump(t *testing.T, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range dumped.FindAllStringSubmatch(tool(t, "dumpe2fs", "-h", path), -1) {
		all[m[1]] = m[2]
	}
	return all
}

// mke2fs with the same options makes the same geometry and features.
func TestInteropMke2fs(t *testing.T) {
	for _, c := range interopCases() {
		if c.size > 16*gib {
			continue // mke2fs writes too much
		}
		if c.options == "-i 4096" && c.size > 128*mib && c.size <= 130*mib {
			continue // a last group is left out, and mke2fs then makes groups smaller
		}
		t.Run(fmt.Sprintf("%d %s", c.size, c.options), func(t *testing.T) {
			f, layout := c.make(t)
			reference := newSparse(t, c.size)
			args := []string{"-q", "-F", "-t", "ext4", "-b", "4096", "-i", "16384", "-I", "256", "-U", "ca5e0000-0000-0000-0000-000000000001", "-L", "label", "-e", "remount-ro",
				"-O", "^resize_inode", "-J", "size=" + strconv.FormatUint(max(layout.JournalBlocks, 1024)/256, 10)}
			args = append(args, strings.Fields(c.options)...)
			if layout.JournalBlocks == 0 {
				args = slices.DeleteFunc(args, func(s string) bool { return s == "-J" || strings.HasPrefix(s, "size=") })
				// A second -O replaces the first.
				args[slices.Index(args, "^has_journal")] = "^has_journal,^resize_inode"
			}
			tool(t, "mke2fs", append(args, reference.Name())...)
			ours, theirs := dump(t, f.Name()), dump(t, reference.Name())
			for _, name := range []string{
				"Filesystem volume name", "Filesystem UUID", "Filesystem magic number", "Filesystem revision #", "Filesystem features", "Filesystem flags",
				"Default mount options", "Filesystem state", "Errors behavior", "Filesystem OS type", "Inode count", "Block count", "Reserved block count", "Free blocks",
				"Free inodes", "First block", "Block size", "Fragment size", "Group descriptor size", "Blocks per group", "Inodes per group", "Inode blocks per group",
				"Flex block group size", "Maximum mount count", "Check interval", "First inode", "Inode size", "Required extra isize", "Desired extra isize", "Journal inode",
				"Default directory hash", "Journal backup", "Checksum type", "Journal features", "Total journal size", "Total journal blocks", "Max transaction length",
				"Journal sequence", "Journal start",
			} {
				if name == "Reserved block count" && layout.Blocks != uint64(c.size)/blockSize {
					continue // mke2fs counts the blocks that it leaves out
				}
				if ours[name] != theirs[name] {
					t.Errorf("%s: %q, mke2fs makes %q", name, ours[name], theirs[name])
				}
			}
			if ours["Free blocks"] != strconv.FormatUint(layout.FreeBlocks, 10) || ours["Block count"] != strconv.FormatUint(layout.Blocks, 10) {
				t.Errorf("layout %d free of %d, dumpe2fs says %s of %s", layout.FreeBlocks, layout.Blocks, ours["Free blocks"], ours["Block count"])
			}
		})
	}
}

// Times behind 2038 and 2106 take bits that lie elsewhere.
func TestInteropLateTimes(t *testing.T) {
	for _, seconds := range []int64{1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 3<<31 + 5} {
		o, err := ParseOptions("")
		if err != nil {
			t.Fatal(err)
		}
		o.UUID, o.Now = [16]byte{1}, time.Unix(seconds, 0)
		f := newSparse(t, MinSize)
		if _, err := Format(f, MinSize, o); err != nil {
			t.Fatal(err)
		}
		want := o.Now.UTC().Format("Mon Jan _2 15:04:05 2006")
		stat := tool(t, "debugfs", "-R", "stat <2>", f.Name())
		for _, name := range []string{" ctime", " atime", " mtime", "crtime"} {
			if !regexp.MustCompile(`(?m)^` + name + `: 0x[0-9a-f:]+ -- ` + want + `$`).MatchString(stat) {
				t.Errorf("%d: debugfs does not say%s %s: %s", seconds, name, want, stat)
			}
		}
		// This dumpe2fs knows 32 bits of the superblock's times.
		if created := dump(t, f.Name())["Filesystem created"]; seconds < 1<<32 && created != want {
			t.Errorf("created %q, want %q", created, want)
		}
	}
}
