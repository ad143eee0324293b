// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	guestimage "github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/rootfs/kernel"
	"github.com/casemate/casemate/verity"
)

// measured is a guest of the built-in recipe: a boot that pins a root, and the root.
type measured struct {
	boot, root, hash string
	size             int64 // of the root's data
	pin              verity.Pin
}

// recipeModules resolves a list of the recipe.
func recipeModules(ctx context.Context, k *kernel.Kernel, list []string) ([]guestimage.Module, error) {
	names, optional := guestimage.ModuleNames(list)
	found, err := k.Modules(ctx, names)
	var modules []guestimage.Module
	for _, m := range found {
		modules = append(modules, guestimage.Module{GuestPath: m.GuestPath, HostPath: m.HostPath, Optional: optional[m.Name]})
	}
	return modules, err
}

// buildMeasured builds a guest in dir with one more file, whose text tells it from
// others.
func buildMeasured(ctx context.Context, dir, text string) (*measured, error) {
	img, err := prepare()
	if err != nil {
		return nil, err
	}
	recipe, err := guestimage.DefaultRecipe()
	if err != nil {
		return nil, err
	}
	in := guestimage.Inputs{Program: img.init, Extra: []guestimage.Entry{{Path: "/etc/casemate/note", Kind: guestimage.File, Perm: 0o644, Text: text}}}
	for _, f := range img.tests {
		if f.Path == "/tests/guest" { // every byte of the root is read at each boot
			in.Extra = append(in.Extra, guestimage.Entry{Path: f.Path, Kind: guestimage.File, Perm: f.Perm, HostPath: f.HostPath})
		}
	}
	if in.Modules, err = recipeModules(ctx, img.kernel, recipe.Guest.Modules); err != nil {
		return nil, err
	}
	tree, err := recipe.GuestTree(in)
	if err != nil {
		return nil, err
	}
	m := &measured{boot: filepath.Join(dir, "boot"), root: filepath.Join(dir, "root"), hash: filepath.Join(dir, "hash")}
	if err := m.write(ctx, tree); err != nil {
		return nil, err
	}
	boot := guestimage.Inputs{Program: img.init}
	if boot.Modules, err = recipeModules(ctx, img.kernel, recipe.Boot.Modules); err != nil {
		return nil, err
	}
	if tree, err = recipe.BootTree(boot, m.pin.Text()); err != nil {
		return nil, err
	}
	f, err := os.Create(m.boot)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return m, guestimage.WriteInitramfs(f, tree, guestimage.None)
}

func (m *measured) write(ctx context.Context, tree *guestimage.Tree) error {
	root, err := os.Create(m.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if m.size, err = guestimage.WriteRoot(root, guestimage.Erofs, tree); err != nil {
		return err
	}
	hash, err := os.Create(m.hash)
	if err != nil {
		return err
	}
	defer hash.Close()
	m.pin, err = guestimage.HashRoot(ctx, root, m.size, hash)
	return err
}

// disk writes the root and its tree as one disk of two partitions, with the byte at
// the given place of the root, or of its tree, flipped; negative for none.
func (m *measured) disk(t *testing.T, table guestimage.Table, inRoot, inHash int64) string {
	t.Helper()
	var parts [2]guestimage.Part
	for i, file := range []string{m.root, m.hash} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if at := []int64{inRoot, inHash}[i]; at >= 0 {
			b[at] ^= 1
		}
		parts[i] = guestimage.Part{Content: strings.NewReader(string(b)), Size: int64(len(b))}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := guestimage.WriteDisk(f, table, parts[0], parts[1], m.pin); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// otherRoot is what a host may write to have another root or first program.
const otherRoot = "root=/dev/vda1 rootfstype=erofs rw init=/bin/sh casemate.root=0 "

// start boots the measured guest with the given disks.
func (m *measured) start(t *testing.T, ctx context.Context, disks ...string) *VM {
	t.Helper()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := Boot(ctx, Config{Kernel: img.kernel.Image, Initrd: m.boot, Disks: disks, Append: otherRoot + hostileWords, TimeLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Stop(); err != nil {
			t.Errorf("stopping the machine: %v", err)
		}
		fmt.Printf("vm: %s took %.1fs, its emulator %.1fs of processor time\n", t.Name(), vm.Age().Seconds(), vm.CPU().Seconds())
		if t.Failed() {
			t.Logf("console:\n%s", vm.Console)
		}
	})
	return vm
}

// measuredGuests are built once: one guest, and a second that differs in one file.
var measuredGuests = sync.OnceValues(func() ([2]*measured, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var guests [2]*measured
	img, err := prepare()
	if err != nil {
		return guests, err
	}
	for i, text := range []string{"first", "second"} {
		dir := filepath.Join(img.dir, "measured-"+text)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return guests, err
		}
		if guests[i], err = buildMeasured(ctx, dir, text); err != nil {
			return guests, err
		}
	}
	return guests, nil
})

// TestVMMeasuredRoot boots from the initial RAM file system into the root that it
// pins, and checks there what the first process does, as TestVM does in RAM.
func TestVMMeasuredRoot(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	guests, err := measuredGuests()
	if err != nil {
		t.Fatal(err)
	}
	vm := guests[0].start(t, ctx, guests[0].disk(t, guestimage.GPT, -1, -1))
	check(t, "measured-root", func(t *testing.T) {
		for _, line := range []string{"casemate: step: root-verity ", "casemate: step: root-switch ", "casemate: ready: "} {
			if _, err := vm.Console.Expect(ctx, line); err != nil {
				t.Fatal(err)
			}
		}
		if err := health(ctx, agentClient(t, ctx, vm)); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	for _, test := range guestTests() {
		if test.name == "guest" {
			test.run = "^TestVM|^TestMeasuredRoot$"
			inGuest(t, ctx, vm, test)
		}
	}
}

// TestVMChangedRoot: whatever the host changes about the root, the guest stops in a
// named state before it runs anything of it.
func TestVMChangedRoot(t *testing.T) {
	guests, err := measuredGuests()
	if err != nil {
		t.Fatal(err)
	}
	first, second := guests[0], guests[1]
	const verityCode, deviceCode = "boot-root-verity", "boot-root-device"
	for _, tt := range []struct {
		name, code string
		disks      []string
	}{
		{"flipped-byte", verityCode, []string{first.disk(t, guestimage.MSDOS, first.size/2, -1)}},
		{"flipped-tree", verityCode, []string{first.disk(t, guestimage.MSDOS, -1, treeEnd(t, first)-1)}},
		{"another-root", deviceCode, []string{second.disk(t, guestimage.MSDOS, -1, -1)}},
		{"two-roots", deviceCode, []string{first.disk(t, guestimage.MSDOS, -1, -1), first.disk(t, guestimage.GPT, -1, -1)}},
		{"no-disk", deviceCode, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // most of them wait for a disk that never comes
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			vm := first.start(t, ctx, tt.disks...)
			if _, err := vm.Console.Expect(ctx, "casemate: parked: "+tt.code+": the measured root could not be entered"); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(vm.Console.String(), "root-switch") || strings.Contains(vm.Console.String(), "ready") {
				t.Error("the guest went on")
			}
			fmt.Printf("vm: %s parked as %s ok (%.1fs)\n", tt.name, tt.code, vm.Age().Seconds())
		})
	}
}

// treeEnd is where the tree ends. What lies there is no digest, but hashed as well.
func treeEnd(t *testing.T, m *measured) int64 {
	t.Helper()
	info, err := os.Stat(m.hash)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
