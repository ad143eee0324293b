// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
)

// extensionFiles have the names that kata's own builder gives them.
func extensionFiles() rootFiles {
	return rootFiles{"coco-extension.erofs", "coco-extension.verity", "kata-containers-coco-extension.img", "root_hash_coco-extension.txt"}
}

type rootfsExtension struct {
	streams
	rootOutput
	program      string
	list, asJSON bool
}

func newRootfsExtension(s streams) *cobra.Command {
	f := &rootfsExtension{streams: s, rootOutput: rootOutput{table: image.MSDOS, form: image.Erofs, names: extensionFiles()}}
	c := &cobra.Command{
		Use:   "extension",
		Short: "Write a coco extension for a stock kata-agent, with casemate in it",
		Long: `Write the image that kata 4.1 attaches beside its own root as the extension "coco", in
place of the one with guest-components: a read-only erofs with its dm-verity tree in a
raw disk of two partitions, and the lines of kata's configuration that pin it. The
same inputs always give the same bytes.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	c.Flags().StringVar(&f.program, "casemate", "", "`FILE`, the guest's program, statically linked")
	c.Flags().StringVarP(&f.dir, "out", "o", "", "`DIR` to write "+f.names.disk+" and "+f.names.params+" to, with the two partitions as files")
	c.Flags().BoolVar(&f.list, "list", false, "print every file with its size")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsExtension) run(ctx context.Context) error {
	if f.program == "" || f.dir == "" {
		return usagef("--casemate and --out are both needed")
	}
	t, err := image.ExtensionTree(f.program)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	result, err := f.write(ctx, t)
	if err != nil {
		return err
	}
	if result.Content, err = weigh(t, f.list); err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(f.out, result)
	}
	if err := result.print(f.out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f.out, "\n[[hypervisor.qemu.guest_extension_images]]\nname = %q\npath = %q\nverity_params = %q\n",
		image.ExtensionName, filepath.Join("/opt/kata/share/kata-containers", f.names.disk), result.KernelParams)
	return err
}
