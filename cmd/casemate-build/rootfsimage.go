// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/verity"
)

// The files of a root in its directory. Kata's builder calls the text with the pin
// root_hash_VARIANT.txt.
type rootFiles struct{ root, hash, disk, params string }

func guestRoot(form image.FileSystem) rootFiles {
	return rootFiles{"root." + string(form), "root.verity", "root.img", "root_hash.txt"}
}

type rootfsImage struct {
	streams
	guestFlags
	rootOutput
}

// rootOutput writes a read-only root with its hash tree.
type rootOutput struct {
	dir   string
	table image.Table
	form  image.FileSystem
	names rootFiles
}

// rootResult is what a guest's owner pins and where the files are.
type rootResult struct {
	KernelParams string     `json:"kernel_verity_params"`
	Artifacts    []artifact `json:"artifacts"`
	Content      holdings   `json:"content"`
}

func newRootfsImage(s streams) *cobra.Command {
	var table, form string
	var asJSON bool
	f := &rootfsImage{streams: s}
	c := &cobra.Command{
		Use:   "image",
		Short: "Write the guest as a read-only root with its hash tree",
		Long: `Write the guest as a read-only root with its dm-verity tree, as two files and
as a raw disk of two partitions, and the pin that a measured boot and kata's
kernel_verity_params name. The same inputs always give the same bytes.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			f.table, f.form = image.Table(table), image.FileSystem(form)
			f.names = guestRoot(f.form)
			return f.run(c.Context(), asJSON)
		},
	}
	f.register(c)
	c.Flags().StringVarP(&f.dir, "out", "o", "", "`DIR` to write root.erofs or root.ext4, root.verity, root.img and root_hash.txt to")
	c.Flags().StringVar(&table, "table", string(image.MSDOS), "the disk's partition table: msdos, as kata's images have it, or gpt")
	c.Flags().StringVar(&form, "fs", string(image.Erofs), "the root's file system: erofs or ext4")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsImage) run(ctx context.Context, asJSON bool) (err error) {
	if f.dir == "" {
		return usagef("--out is missing")
	}
	if f.table != image.MSDOS && f.table != image.GPT {
		return usagef("--table: want msdos or gpt, got %q", f.table)
	}
	if f.form != image.Erofs && f.form != image.Ext4 {
		return usagef("--fs: want erofs or ext4, got %q", f.form)
	}
	t, done, err := f.tree(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
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
	if asJSON {
		return printJSON(f.out, result)
	}
	return result.print(f.out)
}

// write makes the files one after the other, the pin's last.
func (f rootOutput) write(ctx context.Context, t *image.Tree) (rootResult, error) {
	var size int64
	root, err := writeArtifact(filepath.Join(f.dir, f.names.root), func(w *os.File) (err error) {
		size, err = image.WriteRoot(w, f.form, t)
		return err
	})
	if err != nil {
		return rootResult{}, err
	}
	data, err := os.Open(root.Path)
	if err != nil {
		return rootResult{}, err
	}
	defer data.Close()
	var pin verity.Pin
	hash, err := writeArtifact(filepath.Join(f.dir, f.names.hash), func(w *os.File) (err error) {
		pin, err = image.HashRoot(ctx, data, size, w)
		return err
	})
	if err != nil {
		return rootResult{}, err
	}
	tree, err := os.Open(hash.Path)
	if err != nil {
		return rootResult{}, err
	}
	defer tree.Close()
	disk, err := writeArtifact(filepath.Join(f.dir, f.names.disk), func(w *os.File) error {
		_, err := image.WriteDisk(w, f.table, image.Part{Content: data, Size: size}, image.Part{Content: tree, Size: hash.Bytes}, pin)
		return err
	})
	if err != nil {
		return rootResult{}, err
	}
	params, err := pin.KernelParams()
	if err != nil {
		return rootResult{}, err
	}
	text, err := writeArtifact(filepath.Join(f.dir, f.names.params), func(w *os.File) error {
		_, err := w.WriteString(params + "\n")
		return err
	})
	return rootResult{KernelParams: params, Artifacts: []artifact{root, hash, disk, text}}, err
}

func (r rootResult) print(w io.Writer) error {
	for _, a := range r.Artifacts {
		a.print(w)
	}
	r.Content.print(w)
	_, err := fmt.Fprintf(w, "pin      %s\n", r.KernelParams)
	return err
}
