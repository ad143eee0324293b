// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/verity"
)

// The files of a root in its directory. Kata's builder calls the text with the pin
// root_hash_VARIANT.txt.
const (
	rootFile  = "root.erofs"
	hashFile  = "root.verity"
	diskFile  = "root.img"
	paramFile = "root_hash.txt"
)

type rootfsImage struct {
	streams
	guestFlags
	out, table string
	asJSON     bool
}

// rootResult is what a guest's owner pins and where the files are.
type rootResult struct {
	KernelParams string     `json:"kernel_verity_params"`
	Artifacts    []artifact `json:"artifacts"`
	Content      holdings   `json:"content"`
}

func newRootfsImage(s streams) *cobra.Command {
	f := &rootfsImage{streams: s}
	c := &cobra.Command{
		Use:   "image",
		Short: "Write the guest as a read-only root with its hash tree",
		Long: `Write the guest as a read-only erofs root with its dm-verity tree, as two files and
as a raw disk of two partitions, and the pin that a measured boot and kata's
kernel_verity_params name. The same inputs always give the same bytes.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	f.register(c)
	c.Flags().StringVarP(&f.out, "out", "o", "", "`DIR` to write "+rootFile+", "+hashFile+", "+diskFile+" and "+paramFile+" to")
	c.Flags().StringVar(&f.table, "table", string(image.MSDOS), "the disk's partition table: msdos, as kata's images have it, or gpt")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *rootfsImage) run(ctx context.Context) (err error) {
	if f.out == "" {
		return usagef("--out is missing")
	}
	if t := image.Table(f.table); t != image.MSDOS && t != image.GPT {
		return usagef("--table: want msdos or gpt, got %q", f.table)
	}
	t, done, err := f.tree(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return err
	}
	result, err := f.write(ctx, t)
	if err != nil {
		return err
	}
	if result.Content, err = weigh(t, f.list); err != nil {
		return err
	}
	return f.print(result)
}

// write makes the files one after the other, the pin's last.
func (f *rootfsImage) write(ctx context.Context, t *image.Tree) (rootResult, error) {
	var size int64
	root, err := writeArtifact(filepath.Join(f.out, rootFile), func(w *os.File) (err error) {
		size, err = image.WriteRoot(w, t)
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
	hash, err := writeArtifact(filepath.Join(f.out, hashFile), func(w *os.File) (err error) {
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
	disk, err := writeArtifact(filepath.Join(f.out, diskFile), func(w *os.File) error {
		_, err := image.WriteDisk(w, image.Table(f.table), image.Part{Content: data, Size: size}, image.Part{Content: tree, Size: hash.Bytes}, pin)
		return err
	})
	if err != nil {
		return rootResult{}, err
	}
	params, err := pin.KernelParams()
	if err != nil {
		return rootResult{}, err
	}
	text, err := writeArtifact(filepath.Join(f.out, paramFile), func(w *os.File) error {
		_, err := w.WriteString(params + "\n")
		return err
	})
	return rootResult{KernelParams: params, Artifacts: []artifact{root, hash, disk, text}}, err
}

func (f *rootfsImage) print(r rootResult) error {
	if f.asJSON {
		return printJSON(f.streams.out, r)
	}
	for _, a := range r.Artifacts {
		a.print(f.streams.out)
	}
	r.Content.print(f.streams.out)
	_, err := fmt.Fprintf(f.streams.out, "pin      %s\n", r.KernelParams)
	return err
}
