// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/verity"
)

type rootfsInitramfs struct {
	streams
	guestFlags
	out, compression, pin string
	asJSON                bool
}

func newRootfsInitramfs(s streams) *cobra.Command {
	f := &rootfsInitramfs{streams: s}
	c := &cobra.Command{
		Use:   "initramfs",
		Short: "Write the guest as an initial RAM file system",
		Long: `Write the guest as an initial RAM file system with casemate as /init: the whole
guest, as kata's initrd, or with --pin a small one that boots the read-only root
which the pin names, and no other. The same inputs always give the same bytes.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	f.register(c)
	c.Flags().StringVarP(&f.out, "out", "o", "", "`FILE` to write")
	c.Flags().StringVar(&f.compression, "compress", string(image.Zstd), "zstd, gzip or none")
	c.Flags().StringVar(&f.pin, "pin", "", "`TEXT`, the root's pin as rootfs image prints it")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsInitramfs) run(ctx context.Context) (err error) {
	if f.out == "" {
		return usagef("--out is missing")
	}
	if f.pin != "" {
		if _, err := verity.ParsePin(f.pin); err != nil {
			return usagef("--pin: %w", err)
		}
	}
	t, done, err := f.tree(ctx, f.pin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	made, err := writeArtifact(f.out, func(w *os.File) error {
		return image.WriteInitramfs(w, t, image.Compression(f.compression))
	})
	if err != nil {
		return err
	}
	holds, err := weigh(t, f.list)
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(f.streams.out, struct {
			artifact
			Content holdings `json:"content"`
		}{made, holds})
	}
	made.print(f.streams.out)
	holds.print(f.streams.out)
	return nil
}
