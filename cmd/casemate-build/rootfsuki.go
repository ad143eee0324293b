// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
)

const maxUKIPart = 512 << 20 // bytes of a stub, kernel or initrd

type rootfsUKI struct {
	streams
	guestFlags                                     // of which only the cache is used
	stub, kernel, initrd, cmdLine, osRelease, file string
	asJSON                                         bool
}

func newRootfsUKI(s streams) *cobra.Command {
	f := &rootfsUKI{streams: s}
	c := &cobra.Command{
		Use:   "uki",
		Short: "Join kernel, initramfs and command line into one EFI program",
		Long: `Join an EFI stub, a kernel, an initial RAM file system, a command line and an
os-release into a unified kernel image, which a platform measures as one file. The
same inputs always give the same bytes.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	c.Flags().StringVar(&f.stub, "stub", "", "`FILE`, an EFI stub without a signature, as systemd's linuxx64.efi.stub")
	c.Flags().StringVar(&f.kernel, "kernel", debianModules, "`FILE`, a kernel that is an EFI program; debian for Debian's cloud kernel")
	c.Flags().StringVar(&f.initrd, "initrd", "", "`FILE`, as rootfs initramfs writes it")
	c.Flags().StringVar(&f.cmdLine, "cmdline", "console=ttyS0 panic=-1 quiet", "`TEXT`, the kernel's command line")
	c.Flags().StringVar(&f.osRelease, "os-release", "", "`FILE` in place of the built-in recipe's")
	c.Flags().StringVar(&f.cache, "cache", "", "`DIR` for Debian's kernel, as for rootfs initramfs")
	c.Flags().StringVarP(&f.file, "out", "o", "", "`FILE` to write")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsUKI) run(ctx context.Context) error {
	for _, flag := range []struct{ name, value string }{{"out", f.file}, {"stub", f.stub}, {"initrd", f.initrd}, {"cmdline", f.cmdLine}} {
		if flag.value == "" {
			return usagef("--%s is missing", flag.name)
		}
	}
	u, err := f.parts(ctx)
	if err != nil {
		return err
	}
	text, err := u.Build()
	if err != nil {
		return fmt.Errorf("building %s: %w", f.file, err)
	}
	made, err := writeArtifact(f.file, func(w *os.File) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(f.out, made)
	}
	made.print(f.out)
	_, err = fmt.Fprintf(f.out, "holds    stub %d bytes, kernel %d bytes, initrd %d bytes, command line %q\n", len(u.Stub), len(u.Kernel), len(u.Initrd), u.CmdLine)
	return err
}

func (f *rootfsUKI) parts(ctx context.Context) (u image.UKI, err error) {
	kernel := f.kernel
	if kernel == debianModules {
		k, err := f.debian(ctx)
		if err != nil {
			return u, err
		}
		kernel = k.Compressed
	}
	for _, part := range []struct {
		name    string
		content *[]byte
	}{{f.stub, &u.Stub}, {kernel, &u.Kernel}, {f.initrd, &u.Initrd}} {
		if *part.content, err = readFile(part.name, maxUKIPart); err != nil {
			return u, err
		}
	}
	u.CmdLine = strings.TrimSpace(f.cmdLine)
	if f.osRelease != "" {
		text, err := readFile(f.osRelease, maxRecipe)
		u.OSRel = string(text)
		return u, err
	}
	recipe, err := image.DefaultRecipe()
	u.OSRel = recipe.Guest.Files["/etc/os-release"]
	return u, err
}
