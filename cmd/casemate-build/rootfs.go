// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/rootfs/kernel"
)

const (
	maxRecipe = 1 << 20 // bytes
	// Values of --modules besides a directory.
	debianModules = "debian"
	noModules     = "none"
)

func newRootfs(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "rootfs COMMAND", Short: "Build the measured guest", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			return usagef("want initramfs, image, uki, overlay, extension or check, got %q", args)
		},
	}
	c.AddCommand(newRootfsInitramfs(s), newRootfsImage(s), newRootfsUKI(s), newRootfsOverlay(s), newRootfsExtension(s), newRootfsCheck(s))
	return c
}

// guestFlags are the inputs that all forms of a guest share.
type guestFlags struct {
	program, recipe, modules, cache string
	files                           []string
	list, debug                     bool
	shell                           string
}

func (g *guestFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&g.program, "casemate", "", "`FILE`, the guest's program, statically linked")
	c.Flags().StringVar(&g.recipe, "recipe", "", "`FILE` in place of the built-in recipe")
	c.Flags().StringVar(&g.modules, "modules", debianModules, "debian for those of Debian's cloud kernel, a `DIR` lib/modules/VERSION, or none")
	c.Flags().StringVar(&g.cache, "cache", "", "`DIR` for Debian's kernel; casemate/kernel in the user's cache directory unless given")
	c.Flags().StringArrayVar(&g.files, "file", nil, "`GUEST=HOST`, a file to put into the guest, mode 0644; repeatable")
	c.Flags().BoolVar(&g.debug, "debug", false, "make a debug guest, which gives the host a shell, measures differently and is refused by keybroker unless the workload says debug")
	c.Flags().StringVar(&g.shell, "busybox", "", "`FILE`, a static busybox for the shell of a debug guest")
	c.Flags().BoolVar(&g.list, "list", false, "print every file with its size")
}

// load reads the recipe and the files that it is to be joined with.
func (g *guestFlags) load() (image.Recipe, image.Inputs, error) {
	in := image.Inputs{Program: g.program, Debug: g.debug, Shell: g.shell}
	if g.program == "" {
		return image.Recipe{}, in, usagef("--casemate is missing: which program is the guest's")
	}
	if g.debug != (g.shell != "") {
		return image.Recipe{}, in, usagef("--debug and --busybox go together")
	}
	for _, pair := range g.files {
		guest, host, ok := strings.Cut(pair, "=")
		if !ok || host == "" {
			return image.Recipe{}, in, usagef("--file: want GUEST=HOST, got %q", pair)
		}
		in.Extra = append(in.Extra, image.Entry{Path: guest, Kind: image.File, Perm: publicFileMode, HostPath: host})
	}
	if g.recipe == "" {
		r, err := image.DefaultRecipe()
		return r, in, err
	}
	text, err := readFile(g.recipe, maxRecipe)
	if err != nil {
		return image.Recipe{}, in, err
	}
	r, err := image.ParseRecipe(string(text))
	return r, in, err
}

// kernelModules finds the recipe's modules and what they need. done removes what
// was unpacked on the way, once the image is written.
func (g *guestFlags) kernelModules(ctx context.Context, list []string) (modules []image.Module, done func() error, err error) {
	done = func() error { return nil }
	var k *kernel.Kernel
	switch g.modules {
	case noModules:
		return nil, done, nil
	case debianModules:
		k, err = g.debian(ctx)
	default:
		var dir string
		if dir, err = os.MkdirTemp("", "casemate-modules-"); err != nil {
			return nil, done, err
		}
		done = func() error { return os.RemoveAll(dir) }
		k, err = kernel.WithModules(g.modules, dir)
	}
	if err != nil {
		return nil, done, err
	}
	names, optional := image.ModuleNames(list)
	found, err := k.Modules(ctx, names)
	if err != nil {
		return nil, done, fmt.Errorf("choosing modules: %w", err)
	}
	for _, m := range found {
		modules = append(modules, image.Module{GuestPath: m.GuestPath, HostPath: m.HostPath, Optional: optional[m.Name]})
	}
	return modules, done, nil
}

// debian downloads the kernel package of the distribution, or finds it in the cache.
func (g *guestFlags) debian(ctx context.Context) (*kernel.Kernel, error) {
	dir := g.cache
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding a place for Debian's kernel: %w", err)
		}
		dir = filepath.Join(user, "casemate", "kernel")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return kernel.Prepare(ctx, dir)
}

// tree joins recipe, program, files and modules: of the whole guest, or with a pin
// of the measured boot to the root that it names.
func (g *guestFlags) tree(ctx context.Context, pin string) (t *image.Tree, done func() error, err error) {
	recipe, in, err := g.load()
	if err != nil {
		return nil, nil, err
	}
	list := recipe.Guest.Modules
	if pin != "" {
		list = recipe.Boot.Modules
	}
	in.Modules, done, err = g.kernelModules(ctx, list)
	if err == nil && pin != "" {
		t, err = recipe.BootTree(in, pin)
	} else if err == nil {
		t, err = recipe.GuestTree(in)
	}
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return t, done, nil
}
